"""Runnable examples, each short enough to copy from.

``sentiment``
    A mean-pooled sentence classifier with Flair's TextClassifier.
``entities``
    An entity tagger with Flair's SequenceTagger, ELMo and word vectors stacked.
``bilstm``
    A BiLSTM sentence classifier in plain PyTorch.
``training_loop``
    The smallest training loop of your own over stored vectors.

The first three run in two versions a few lines apart: ``--live`` runs ELMo for every batch of every epoch,
``--cached`` runs it once and reads a store from then on. Start with
``python -m featurestore.examples.sentiment --help``.
"""
