"""Extraction: what is planned, encoded and written."""
