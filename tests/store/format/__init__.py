"""The bytes of a store."""
