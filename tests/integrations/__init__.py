"""Stored vectors in other libraries."""
