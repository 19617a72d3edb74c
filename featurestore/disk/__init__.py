"""Files on disk: durable, atomic, opened with care. NumPy and the standard library."""
