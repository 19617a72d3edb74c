"""The bytes of a store: codecs, shards, manifests."""
