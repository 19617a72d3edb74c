"""Column files: CoNLL and CoNLL-U, and what their columns are."""
