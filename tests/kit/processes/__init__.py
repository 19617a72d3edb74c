"""Processes that tests start: clusters, calls that fail."""
