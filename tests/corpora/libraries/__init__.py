"""Corpora that other libraries hold or wrote."""
