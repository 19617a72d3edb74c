"""Extraction on a Ray cluster: actors encode and write, one driver plans and publishes."""
