"""What commands show, and where nobody reads it."""
