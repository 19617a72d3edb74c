"""A store as its users see it."""
