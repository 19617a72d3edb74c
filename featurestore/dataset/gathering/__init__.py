"""Stored rows gathered into batches: compiled, by torch, or from resident memory."""
