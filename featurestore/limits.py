"""Every bound in one place: the largest sentence, shard, manifest, file.

With them a damaged or hostile file is refused by arithmetic, before anything is allocated, and no counter on
disk can overflow. All are far above what real corpora need.
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
"""Of a shard, everything but the vectors: keys, offsets, tokens. A reader keeps it in memory."""

DEFAULT_SHARD_BYTES = 128 << 20

MAX_SHARDS = 1 << 20
"""128 TiB in shards of the default size."""

MAX_LISTED_SHARDS = 1 << 16
"""Of a manifest of version 1, which lists all shards itself."""

MAX_LIST_SHARDS = 1 << 16
"""Of one list; those that a writer makes are not joined beyond it."""

MAX_LISTS = 1024
"""That a manifest names. A writer's are at most 32 for the largest store."""

MAX_COUNT = 1 << 48
"""Of anything that is counted and has no bound of its own, such as the tokens of a shard."""

MAX_CANARIES = 64
MAX_CANARY_TOKENS = 4096
MAX_CANARY_BYTES = 16 << 20
"""Of a store's canaries, all of which are read and encoded before each append."""

MAX_MANIFEST_BYTES = 1 << 27
MAX_RECIPE_BYTES = 1 << 20
MAX_RECIPE_DEPTH = 32

MAX_LINE_BYTES = 64 << 20
"""Longest line of a corpus file: a file without line ends must not be read whole."""

MAX_DOCUMENTS_BYTES = 4 << 30
"""Of a spaCy file, unpacked: spaCy reads it whole."""

MAX_OPTIONS_BYTES = 1 << 20
"""Largest ELMo options file."""

MAX_CHECKPOINT_BYTES = 4 << 30

MAX_OPENINGS_BYTES = 4 << 30
MAX_OPENINGS = 1000
"""Of remembered openings in a user's cache folder, together; those least recently used go first."""

MAX_OPENING_HEADER_BYTES = 1 << 26
