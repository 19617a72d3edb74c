"""The benchmark: bench.py runs the parts, modules of these rooms; the rest is what they share."""
