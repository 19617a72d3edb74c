"""From a key to its place, and sets of keys."""
