"""What a dataset opens with: places, lengths and labels, and what is remembered of them."""
