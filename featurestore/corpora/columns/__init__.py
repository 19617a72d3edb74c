"""Files with a word on each line: CoNLL and its relatives, CoNLL-U."""
