"""Corpora as other libraries have them: tables of Arrow, frames, data sets, documents of spaCy."""
