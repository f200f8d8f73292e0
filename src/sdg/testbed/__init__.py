"""The embedded world: scenes with known defects, an oracle that finds them, and small models of real classes.

Everything here runs on two CPU cores with nothing to download.
"""
