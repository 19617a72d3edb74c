"""Training a bidirectional language model of the ELMo architecture on one's own text."""
