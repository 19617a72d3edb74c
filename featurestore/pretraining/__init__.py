"""Training a bidirectional language model of the ELMo architecture on your own text."""
