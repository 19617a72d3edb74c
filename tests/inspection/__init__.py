"""Tests of ``featurestore/inspection``."""
