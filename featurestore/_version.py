"""The version of this package, which stores and models name as their maker's."""

__version__ = "0.1.0"
