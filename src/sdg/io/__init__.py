"""Files, JSON Lines, URIs and servers: how every other room reads and writes."""
