"""Speed and memory of extraction on a cluster."""
