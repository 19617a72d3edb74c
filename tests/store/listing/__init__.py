"""Lists of shards."""
