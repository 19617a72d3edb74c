"""Checks for what you build on featurestore, to be run in your own tests."""

from __future__ import annotations

from featurestore.testing.storage import StorageContract

__all__ = ["StorageContract"]
