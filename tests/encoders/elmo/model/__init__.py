"""The network of ELMo."""
