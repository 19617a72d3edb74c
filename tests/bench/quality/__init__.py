"""How good the vectors and the models are."""
