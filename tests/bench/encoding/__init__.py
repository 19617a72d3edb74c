"""What encoding and extraction cost."""
