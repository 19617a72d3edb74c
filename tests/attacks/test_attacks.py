"""Hostile stores, each used in a process of its own: refused, at little cost, nothing outside touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.hostile import HARMLESS, Attack, copy_store, make_store, require_refused
from tests.attacks.hostile_canaries import CANARY_ATTACKS
from tests.attacks.hostile_manifests import DIRECTORY_ATTACKS, HEAD_ATTACKS, INDEX_ATTACKS, MANIFEST_ATTACKS
from tests.attacks.hostile_shards import SHARD_ATTACKS

FAMILIES = {
    "shard": SHARD_ATTACKS,
    "head": HEAD_ATTACKS,
    "manifest": MANIFEST_ATTACKS,
    "directory": DIRECTORY_ATTACKS,
    "index": INDEX_ATTACKS,
    "canaries": CANARY_ATTACKS,
}
ATTACKS = {
    f"{family}: {name}": attack for family, attacks in FAMILIES.items() for name, attack in attacks.items()
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("sound") / "store.fs").path


def test_there_are_enough():
    assert len(ATTACKS) > 150


def test_a_harmless_store_is_served(victim, sound, tmp_path):
    require_refused(Attack(lambda path: None, HARMLESS), victim.use(copy_store(sound, tmp_path / "store.fs")))


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused(victim, sound, tmp_path, name):
    attack = ATTACKS[name]
    store = copy_store(sound, tmp_path / "store.fs")
    attack.harm(store)
    require_refused(attack, victim.use(store))
