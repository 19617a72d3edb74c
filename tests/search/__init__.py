"""Tests of ``featurestore/search``."""
