"""ELMo as an encoder."""
