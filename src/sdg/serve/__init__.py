"""Models of this package, and of others, behind HTTP on this machine."""
