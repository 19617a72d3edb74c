"""Tests of ``featurestore/notebook``."""
