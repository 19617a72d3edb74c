"""Checks for what you build on featurestore, to be run in your own tests."""

from __future__ import annotations

from featurestore.testing.encoders import RULES, EncoderCheck, check_encoder
from featurestore.testing.storage import StorageContract

__all__ = ["RULES", "EncoderCheck", "StorageContract", "check_encoder"]
