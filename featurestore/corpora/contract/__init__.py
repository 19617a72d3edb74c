"""What every corpus reader is given and yields: options, lines, examples."""
