"""Encoders: the only code that turns sentences into vectors."""
