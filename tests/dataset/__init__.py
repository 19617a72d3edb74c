"""FeatureDataset and its loader."""
