"""Tests of projects, their settings and what commands take from them."""
