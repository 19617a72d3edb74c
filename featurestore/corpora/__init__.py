"""Corpora: files in the field's formats, read as a stream of examples. No torch, no flair."""
