"""What every engine shares: the units of work, the store before and after, publishing in order."""
