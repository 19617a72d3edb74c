"""Verify, repair, collect garbage, merge, count."""
