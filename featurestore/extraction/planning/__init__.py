"""Planning: what an extraction would do and how long it would take, before a model is loaded."""
