"""Models behind HTTP on this machine."""
