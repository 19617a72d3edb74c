"""Files: where they lie, how they are opened and replaced, what JSON is accepted."""
