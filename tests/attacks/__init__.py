"""Stores made by an enemy: refused with one clear error, never with a wrong vector."""
