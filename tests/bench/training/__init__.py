"""What training on stored vectors costs, beside live ones."""
