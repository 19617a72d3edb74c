"""featurestore.testing: what users check their own encoders and storage by."""
