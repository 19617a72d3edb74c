"""Flair's embeddings as an encoder."""
