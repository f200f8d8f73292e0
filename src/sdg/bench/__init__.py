"""Benchmarks: the tables of the paper by one command each, on real prompt sets and published data."""
