"""Lists of shards: what a manifest refers to instead of writing every shard anew."""
