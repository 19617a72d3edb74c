"""Runnable examples: ``python -m featurestore.examples.training_loop --help``."""
