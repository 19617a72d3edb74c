"""Hostile stores, each used in a process of its own: refused, at little cost, nothing outside touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.catalog import ATTACKS
from tests.attacks.hostile import HARMLESS, Attack, copy_store, make_store, require_refused


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
