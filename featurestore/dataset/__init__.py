"""The Dataset: a store and examples in, training batches out."""
