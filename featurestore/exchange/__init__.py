"""Vectors carried out of stores and into them, in the formats of others."""
