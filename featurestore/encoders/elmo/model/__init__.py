"""The network of ELMo: characters, convolutions, recurrent layers."""
