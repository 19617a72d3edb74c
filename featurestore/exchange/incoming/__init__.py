"""Readers of vectors that other tools wrote: a stranger's files, checked before anything is allocated."""
