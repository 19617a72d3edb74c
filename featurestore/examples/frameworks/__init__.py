"""A tagger trained over stored vectors with each training framework; each resumes where it was stopped.

``with_lightning``, ``with_accelerate``, ``with_trainer`` (of Hugging Face), ``with_skorch``,
``with_torchdata``, ``with_ignite``: ``python -m featurestore.examples.frameworks.with_lightning --help``.
What each framework does with a loader, and the lines it needs: ``featurestore/integrations/FRAMEWORKS.md``.
"""
