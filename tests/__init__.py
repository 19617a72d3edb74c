"""The tests: a room for each room of the package, and what they share in tests/kit."""
