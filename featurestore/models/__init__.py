"""Light models over stored vectors, and their training loop."""
