"""Light models on stored vectors."""
