"""Bytes, lines, addresses and servers: what every room reads and writes by."""
