"""Annotation by people: the protocol of SDG §3.3 and App. A on a Label Studio server, or on one page."""
