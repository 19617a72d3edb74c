"""Tests of ``featurestore/report``."""
