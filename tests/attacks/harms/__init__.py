"""What strangers do to a store: manifests, lists, shards, canaries, indexes."""
