"""Training a biLM."""
