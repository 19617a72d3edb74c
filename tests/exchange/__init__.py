"""Verify, repair, collect garbage, merge."""
