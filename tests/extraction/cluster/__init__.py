"""Extraction on a cluster."""
