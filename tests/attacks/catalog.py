"""Every attack by name."""

from __future__ import annotations

from tests.attacks.harms.canaries import CANARY_ATTACKS
from tests.attacks.harms.indexes import INDEX_ATTACKS
from tests.attacks.harms.lists import LIST_ATTACKS
from tests.attacks.harms.manifests import DIRECTORY_ATTACKS, HEAD_ATTACKS, MANIFEST_ATTACKS
from tests.attacks.harms.shards import SHARD_ATTACKS

FAMILIES = {
    "shard": SHARD_ATTACKS,
    "head": HEAD_ATTACKS,
    "manifest": MANIFEST_ATTACKS,
    "directory": DIRECTORY_ATTACKS,
    "index": INDEX_ATTACKS,
    "list": LIST_ATTACKS,
    "canaries": CANARY_ATTACKS,
}
ATTACKS = {
    f"{family}: {name}": attack for family, attacks in FAMILIES.items() for name, attack in attacks.items()
}
