"""Tests of what makes up batches."""
