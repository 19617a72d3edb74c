"""Commands that keep stores sound, make stores of stores, and carry vectors out."""
