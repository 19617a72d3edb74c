"""Readers of corpus formats: lines in, examples out."""
