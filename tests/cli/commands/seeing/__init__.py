"""Tests of ``featurestore/cli/commands/seeing``."""
