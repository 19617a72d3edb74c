"""Stores of released versions: opened, read and refused as on the day they were written."""
