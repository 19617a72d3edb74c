"""What a dataset knows of its examples before a vector is read: places, lengths and labels."""
