"""What a store does while something goes wrong, and what must hold afterwards whatever that was.

A scenario prepares a folder, acts in it through a given file system, and acknowledges sentences as a user
would: when the call that stores them has returned. ``check`` looks at what is left: every acknowledged
sentence is there, nothing is there twice, every vector is exact, and acting once more finishes the job.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

from featurestore.corpora.memory import corpus_from_sentences
from featurestore.disk.filesystem import LOCAL, FileSystem
from featurestore.disk.temporary import temporary_name
from featurestore.exchange.importing import import_vectors
from featurestore.keys import Sentence, sentence_key
from featurestore.store.canaries import make_canaries, require_canaries
from featurestore.store.index import covering
from featurestore.store.index.loading import load_index
from featurestore.store.listing.shards import MOST_INLINE
from featurestore.store.maintenance.gc import collect
from featurestore.store.maintenance.merge import merge
from featurestore.store.maintenance.recoding import recode
from featurestore.store.maintenance.repair import repair
from featurestore.store.maintenance.replacing import compact, remove
from featurestore.store.maintenance.selection import select
from featurestore.store.maintenance.subset import subset
from featurestore.store.snapshot import shard_list
from featurestore.store.store import Store
from featurestore.store.upgrading import upgrade
from featurestore.store.verification import verify
from tests.kit.damage import flip_bit, value_offset
from tests.kit.faulty import InterruptedFileSystem
from tests.kit.stores import (
    CONDITIONED_SENTENCES,
    KitEncoder,
    as_version_1,
    create,
    fill,
    sentences,
    shard_path,
    vectors_of,
)

Acknowledge = Callable[[list[Sentence]], object]
N_BEFORE, N_AFTER = 4, 12
"""Sentences committed before something goes wrong, and those that are to be there in the end."""
EVERY_SENTENCE = [*sentences(N_AFTER), *CONDITIONED_SENTENCES]
"""All that any scenario stores."""


@dataclass(frozen=True)
class Scenario:
    """Something a store does.

    Attributes
    ----------
    name : str
    prepare : callable
        Puts into a folder what was there before; all of it is committed.
    act : callable
        Does it in the folder, through a file system, and acknowledges. Doing it again finishes it.
    before, after : list of Sentence
        What the store holds before and in the end.
    store : str
        Where in the folder the store lies.
    damaged : bool
        Whether what was there before is damaged, beside the sentences of ``before``.
    """

    name: str
    prepare: Callable[[Path], object]
    act: Callable[[Path, FileSystem, Acknowledge], object]
    before: list[Sentence]
    after: list[Sentence]
    store: str = "store.fs"
    damaged: bool = False


def prepare_store(folder: Path) -> None:
    fill(create(folder / "store.fs"), sentences(N_BEFORE))


def _add(store: Store, wanted: Iterable[Sentence], acknowledge: Acknowledge) -> None:
    """Add sentences in one session, a shard for every three."""
    pending: list[Sentence] = []
    with store.write() as session:
        for tokens in wanted:
            session.add(tokens, vectors_of(tokens))
            pending.append(tokens)
            if len(pending) == 3:
                session.flush()
                acknowledge(pending)
                pending = []
    acknowledge(pending)


def _act_create(folder: Path, filesystem: FileSystem, acknowledge: Acknowledge) -> None:
    path = folder / "new" / "store.fs"
    if Store.exists(path):
        store = Store.open(path, filesystem=filesystem)
    else:
        store = create(path, filesystem=filesystem, canaries=make_canaries(KitEncoder()))
    _add(store, sentences(N_BEFORE), acknowledge)


def _act_append(folder: Path, filesystem: FileSystem, acknowledge: Acknowledge) -> None:
    _add(Store.open(folder / "store.fs", filesystem=filesystem), sentences(N_AFTER), acknowledge)


def _act_canaries(folder: Path, filesystem: FileSystem, acknowledge: Acknowledge) -> None:
    """Give canaries to a store that has none, or have them sing."""
    encoder = KitEncoder()
    opened = Store.open(folder / "store.fs", filesystem=filesystem)
    store = require_canaries(opened, encoder)
    assert store.manifest.canaries is not None
    times = 2 if opened.manifest.canaries is None else 1  # new ones alone, then all in a batch
    assert encoder.n_encoded == times * store.manifest.canaries.shard.n_sentences


def _act_commit(folder: Path, filesystem: FileSystem, acknowledge: Acknowledge) -> None:
    _commit(folder, filesystem, EVERY_SENTENCE, acknowledge)


def _commit(folder: Path, filesystem: FileSystem, wanted: list[Sentence], acknowledge: Acknowledge) -> None:
    """Commit sentences as one shard, as an extraction does."""
    session = Store.open(folder / "store.fs", filesystem=filesystem).write()
    draft = session.draft(wanted)
    for position, tokens in enumerate(wanted):
        draft.put(position, vectors_of(tokens))
    session.commit(draft)
    acknowledge(wanted)
    session.close()


def _conflict(theirs: list[Sentence]) -> Callable[[Path, FileSystem, Acknowledge], None]:
    """Another writer commits some of our sentences when our shard is in its place, but not our manifest."""

    def act(folder: Path, filesystem: FileSystem, acknowledge: Acknowledge) -> None:
        interrupted = InterruptedFileSystem(
            filesystem,
            lambda operation: operation.kind == "link" and operation.path.parent.name == "manifests",
            lambda: _commit(folder, filesystem, theirs, acknowledge),
        )
        _commit(folder, interrupted, EVERY_SENTENCE, acknowledge)

    return act


def _prepare_unindexed(folder: Path) -> None:
    _add(create(folder / "store.fs"), sentences(N_AFTER), lambda _: None)
    shutil.rmtree(folder / "store.fs" / "index")


def _act_index(folder: Path, filesystem: FileSystem, acknowledge: Acknowledge) -> None:
    assert Store.open(folder / "store.fs", filesystem=filesystem).index.n_shards > 2


def _prepare_run(folder: Path) -> None:
    """Four shards of three sentences, and an index of one run over two of them."""
    _prepare_unindexed(folder)
    _index_runs(folder, LOCAL, 2)


def _act_runs(folder: Path, filesystem: FileSystem, acknowledge: Acknowledge) -> None:
    """Add a run of one shard's keys, then one that takes in all of them, through scratch files."""
    # Done again after a kill, the first may find the second's file; on a disk that fails, runs stay apart.
    for n_shards, expected in ((3, [(0, 2), (2, 3)]), (4, [(0, 4)])):
        spans = _index_runs(folder, filesystem, n_shards)
        assert spans == expected or spans[-1][1] == n_shards


def _index_runs(folder: Path, filesystem: FileSystem, n_shards: int) -> list[tuple[int, int]]:
    """Return the first shards of an index's runs and those after the last ones."""
    store = Store.open(folder / "store.fs", filesystem=filesystem)
    shards = shard_list(replace(store.manifest, shards=store.manifest.shards[:n_shards]))
    with patch.object(covering, "SMALL", 0):
        index = load_index(
            store.path / "index", shards, store.keys_of, filesystem=filesystem, most_in_memory=0
        )
    return [(run.first, run.stop) for run in index.runs]


def _prepare_damaged(folder: Path) -> None:
    """Damage the file of the shard that the commit is about to write: it was left by a killed writer."""
    prepare_store(folder)
    twin = folder / "twin"
    shutil.copytree(folder / "store.fs", twin / "store.fs")
    _act_commit(twin, LOCAL, lambda _: None)
    name = Store.open(twin / "store.fs").manifest.shards[-1].name
    shutil.rmtree(twin)
    (folder / "store.fs" / "shards" / name).write_bytes(b"half a shard")


def _prepare_garbage(folder: Path) -> None:
    """Several snapshots, a shard and canaries that none lists, a stale index, a file of a dead writer."""
    store = create(folder / "store.fs")
    for n in (3, 6, 9, N_AFTER):
        store = fill(store.refreshed(), sentences(n))
    other = fill(create(folder / "other.fs"), sentences(3, start=20))
    shutil.copy(shard_path(other), store.path / "shards")
    shutil.rmtree(other.path)
    (store.path / "canaries").mkdir()
    (store.path / "canaries" / f"{0:032x}.h5").write_bytes(b"of a store that was made by somebody else")
    (store.path / "index" / f"{0:016x}.idx").write_bytes(b"stale")
    (store.path / "tmp" / temporary_name(".h5")).write_bytes(b"half a shard")


def _act_gc(folder: Path, filesystem: FileSystem, acknowledge: Acknowledge) -> None:
    collect(folder / "store.fs", keep_last=1, older_than=0, filesystem=filesystem)


def _prepare_merge(folder: Path) -> None:
    """A shard to be taken in part, and two to be taken whole."""
    prepare_store(folder)
    _add(create(folder / "other.fs"), sentences(N_AFTER - 2, start=2), lambda _: None)


def _act_merge(folder: Path, filesystem: FileSystem, acknowledge: Acknowledge) -> None:
    merge([folder / "other.fs"], folder / "store.fs", filesystem=filesystem)
    acknowledge(sentences(N_AFTER))


def _prepare_damage(folder: Path) -> None:
    store = create(folder / "store.fs", canaries=make_canaries(KitEncoder()))
    flip_bit(next((store.path / "canaries").iterdir()), 4096)
    _add(store, sentences(N_AFTER), lambda _: None)
    flip_bit(shard_path(store.refreshed(), 1), value_offset(store.refreshed(), 1, 1))


def _act_repair(folder: Path, filesystem: FileSystem, acknowledge: Acknowledge) -> None:
    repair(folder / "store.fs", filesystem=filesystem)
    _add(Store.open(folder / "store.fs", filesystem=filesystem), sentences(N_AFTER), acknowledge)


def _prepare_many(folder: Path) -> None:
    """Four shards of three sentences each."""
    _add(create(folder / "store.fs"), sentences(N_AFTER), lambda _: None)


def _into_new(
    make: Callable[[Store, Path, FileSystem], object],
) -> Callable[[Path, FileSystem, Acknowledge], None]:
    """Return a scenario's act that makes a store of another, all or nothing."""

    def act(folder: Path, filesystem: FileSystem, acknowledge: Acknowledge) -> None:
        source, path = Store.open(folder / "store.fs"), folder / "new" / "store.fs"
        n_found = len(Store.open(path)) if Store.exists(path) else 0
        if not n_found:
            make(source, path, filesystem)
        made = [tokens for _, _, tokens in Store.open(path).sentences()]
        assert n_found in (0, len(made))
        if not n_found:  # what a killed one left was only read, which makes nothing durable
            acknowledge(made)

    return act


def _make_subset(source: Store, path: Path, filesystem: FileSystem) -> None:
    wanted = select(source, keys=map(sentence_key, sentences(N_AFTER - 2, start=2)))
    subset(source, wanted, path, filesystem=filesystem)


def _make_recoded(source: Store, path: Path, filesystem: FileSystem) -> None:
    recode(source, path, "float32", filesystem=filesystem)


def _prepare_import(folder: Path) -> None:
    """Vectors of others, as one array of all sentences' tokens."""
    folder.mkdir(exist_ok=True)
    np.save(folder / "theirs.npy", np.concatenate([vectors_of(s) for s in sentences(N_AFTER)]))


def _act_import(folder: Path, filesystem: FileSystem, acknowledge: Acknowledge) -> None:
    path = folder / "new" / "store.fs"
    if not Store.exists(path) or not len(Store.open(path)):
        import_vectors(
            folder / "theirs.npy",
            "npy",
            path,
            note="of the tests",
            corpus=corpus_from_sentences(sentences(N_AFTER)),
            shard_bytes=600,
            filesystem=filesystem,
        )
        assert len(Store.open(path).manifest.shards) > 1
        acknowledge(sentences(N_AFTER))


def _act_remove(folder: Path, filesystem: FileSystem, acknowledge: Acknowledge) -> None:
    store = Store.open(folder / "store.fs", filesystem=filesystem)
    unwanted = select(store, keys=map(sentence_key, sentences(N_AFTER - N_BEFORE, start=N_BEFORE)))
    remove(store, unwanted, filesystem=filesystem)


def _act_compact(folder: Path, filesystem: FileSystem, acknowledge: Acknowledge) -> None:
    compact(Store.open(folder / "store.fs", filesystem=filesystem), filesystem=filesystem)


def _one_by_one(store: Store, wanted: Iterable[Sentence], acknowledge: Acknowledge) -> None:
    with store.write() as session:
        for tokens in wanted:
            session.add(tokens, vectors_of(tokens))
            session.flush()
            acknowledge([tokens])


def _prepare_full_manifest(folder: Path) -> None:
    """As many shards as a manifest lists itself."""
    _one_by_one(create(folder / "store.fs"), sentences(MOST_INLINE), lambda _: None)


def _act_list(folder: Path, filesystem: FileSystem, acknowledge: Acknowledge) -> None:
    """One shard more, with which the entries become a list."""
    store = Store.open(folder / "store.fs", filesystem=filesystem)
    _one_by_one(store, sentences(MOST_INLINE + 1), acknowledge)


def _prepare_version_1(folder: Path) -> None:
    """A store as an older featurestore wrote it, of more shards than a manifest of version 2 lists itself."""
    _one_by_one(create(folder / "store.fs"), sentences(N_AFTER), lambda _: None)
    as_version_1(folder / "store.fs")


def _act_upgrade(folder: Path, filesystem: FileSystem, acknowledge: Acknowledge) -> None:
    upgrade(Store.open(folder / "store.fs", filesystem=filesystem), filesystem=filesystem)


_UNDAMAGED = [*sentences(3), *sentences(6, start=6)]
"""Without those of the second shard of four, of three sentences each."""

SCENARIOS = [
    Scenario("create", lambda folder: None, _act_create, [], sentences(N_BEFORE), "new/store.fs"),
    Scenario("append", prepare_store, _act_append, sentences(N_BEFORE), sentences(N_AFTER)),
    Scenario("canaries", prepare_store, _act_canaries, sentences(N_BEFORE), sentences(N_BEFORE)),
    Scenario("commit", prepare_store, _act_commit, sentences(N_BEFORE), EVERY_SENTENCE),
    Scenario(
        "conflict", prepare_store, _conflict(sentences(4, start=6)), sentences(N_BEFORE), EVERY_SENTENCE
    ),
    Scenario("overtaken", prepare_store, _conflict(EVERY_SENTENCE), sentences(N_BEFORE), EVERY_SENTENCE),
    Scenario("replace", _prepare_damaged, _act_commit, sentences(N_BEFORE), EVERY_SENTENCE),
    Scenario("index", _prepare_unindexed, _act_index, sentences(N_AFTER), sentences(N_AFTER)),
    Scenario("runs", _prepare_run, _act_runs, sentences(N_AFTER), sentences(N_AFTER)),
    Scenario("list", _prepare_full_manifest, _act_list, sentences(MOST_INLINE), sentences(MOST_INLINE + 1)),
    Scenario("upgrade", _prepare_version_1, _act_upgrade, sentences(N_AFTER), sentences(N_AFTER)),
    Scenario("gc", _prepare_garbage, _act_gc, sentences(N_AFTER), sentences(N_AFTER)),
    Scenario("merge", _prepare_merge, _act_merge, sentences(N_BEFORE), sentences(N_AFTER)),
    Scenario(
        "subset", _prepare_many, _into_new(_make_subset), [], sentences(N_AFTER - 2, start=2), "new/store.fs"
    ),
    Scenario("recode", _prepare_many, _into_new(_make_recoded), [], sentences(N_AFTER), "new/store.fs"),
    Scenario("import", _prepare_import, _act_import, [], sentences(N_AFTER), "new/store.fs"),
    Scenario("remove", _prepare_many, _act_remove, sentences(N_BEFORE), sentences(N_BEFORE)),
    Scenario("compact", _prepare_many, _act_compact, sentences(N_AFTER), sentences(N_AFTER)),
    Scenario("repair", _prepare_damage, _act_repair, _UNDAMAGED, sentences(N_AFTER), damaged=True),
]


def prepared_once(scenario: Scenario, folder: Path) -> Callable[[Path], object]:
    """Prepare a folder; return what makes a copy of it under another name, which is quicker."""
    folder.mkdir()
    scenario.prepare(folder)
    return lambda place: shutil.copytree(folder, place)


def check(folder: Path, scenario: Scenario, acknowledged: Iterable[Sentence]) -> list[str]:
    """Return what is wrong with what is left in a folder; finish the job in it."""
    path = folder / scenario.store
    committed = {*scenario.before, *acknowledged}
    try:
        problems = _wrong(path, committed, "left", damaged=scenario.damaged)
        scenario.act(folder, LOCAL, lambda _: None)
        problems += _wrong(path, set(scenario.after), "finished")
        Store.open(path).write()
    except Exception as error:  # noqa: BLE001 - whatever a store raises here is a broken promise
        return [f"{type(error).__name__}: {error}"]
    return problems + [f"left behind: {name.name}" for name in (path / "tmp").iterdir()]


def _wrong(path: Path, expected: set[Sentence], when: str, *, damaged: bool = False) -> list[str]:
    """Return what is wrong with a store that should hold at least some sentences, beside known damage."""
    if not Store.exists(path):
        return [f"{when}: no store, {len(expected)} sentences lost"] if expected else []
    store = Store.open(path)
    stored = [tokens for _, _, tokens in store.sentences()]
    problems = [f"{when}: lost {tokens}" for tokens in expected - set(stored)]
    if len(set(stored)) < len(stored):
        problems.append(f"{when}: {len(stored) - len(set(stored))} sentences twice")
    sound = [tokens for tokens in stored if tokens in expected] if damaged else stored
    for tokens, found in zip(sound, store.get_many(sound), strict=True):
        if not np.array_equal(found, vectors_of(tokens)):
            problems.append(f"{when}: wrong vectors for {tokens}")
    return problems if damaged else problems + [f"{when}: {finding}" for finding in verify(store)]
