"""What commands show: tables, numbers, progress, streams."""
