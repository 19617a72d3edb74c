"""Extraction: examples in, committed shards out."""
