"""Nearest neighbours of a token's vector: exact, in one pass over the store, or by an index of candidates."""
