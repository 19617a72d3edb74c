"""Corpora: what may be given, and what all formats share."""
