"""Encoders, family by family."""
