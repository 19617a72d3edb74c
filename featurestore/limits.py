"""Every bound in one place: what a sentence, a shard, a manifest or a header may be at most.

They exist so that a damaged or hostile file is refused by arithmetic, before anything is allocated, and so
that no counter on disk can overflow. All are far above what real corpora need.
"""

from __future__ import annotations

MAX_SENTENCE_TOKENS = 1_000_000
MAX_TOKEN_BYTES = 1 << 20
MAX_CONDITION_BYTES = 1 << 20
MAX_DIM = 1 << 16
MAX_LAYERS = 256

MAX_SHARD_SENTENCES = 1 << 26
MAX_SHARD_BYTES = 1 << 40
MAX_HEAD_BYTES = 1 << 30
"""What a reader holds of a shard beside the vectors: keys, offsets, tokens."""

DEFAULT_SHARD_BYTES = 128 << 20

MAX_SHARDS = 1 << 16
"""Eight TiB in shards of the usual size. Every commit writes the list of all of them."""

MAX_CANARIES = 64
MAX_CANARY_TOKENS = 4096
MAX_CANARY_BYTES = 16 << 20
"""Sentences, tokens and file size of a store's canaries: all are read and encoded before each append."""

MAX_MANIFEST_BYTES = 1 << 27
MAX_RECIPE_BYTES = 1 << 20
MAX_RECIPE_DEPTH = 32

MAX_LINE_BYTES = 64 << 20
"""Longest line of a corpus file: a text file without line ends must not be read whole."""

MAX_OPTIONS_BYTES = 1 << 20
"""Largest ELMo options file."""

MAX_CHECKPOINT_BYTES = 4 << 30
