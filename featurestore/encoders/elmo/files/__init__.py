"""The files of an ELMo: where they come from, what they hold, who they are."""
