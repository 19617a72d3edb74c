"""The files of corpora: their bytes, compressed or not, and where they lie."""
