"""The readers, format by format."""
