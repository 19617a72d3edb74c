"""ELMo (Peters et al. 2018) in plain PyTorch."""
