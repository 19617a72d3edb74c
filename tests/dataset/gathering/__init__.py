"""Rows gathered into batches, in every way there is."""
