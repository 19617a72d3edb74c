"""Column files: CoNLL and its relatives, CoNLL-U."""
