"""The report of a store: what is in it, whether it is sound, what its vectors are like; on one page."""
