"""The LSTM of the light models."""
