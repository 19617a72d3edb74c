"""The files of an ELMo."""
