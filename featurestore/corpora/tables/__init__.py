"""Tables: how their rows are written, what they name, and their sentences."""
