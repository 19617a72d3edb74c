"""A store against a dictionary: any order of adding, committing, reopening, reading and losing the index."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from featurestore.errors import MissingSentencesError
from featurestore.keys import Sentence, sentence_key
from featurestore.store.format.directory import read_manifest
from featurestore.store.store import Store
from featurestore.store.verification import verify
from tests.kit.stores import CONDITIONED_SENTENCES, ODD_SENTENCES, create, sentence, vectors_of

SENTENCES = st.integers(0, 25).map(sentence) | st.sampled_from([*ODD_SENTENCES, *CONDITIONED_SENTENCES])


class StoreMachine(RuleBasedStateMachine):
    """Two writing sessions and a reader; ``committed`` and ``pending`` say what they should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.committed: dict[Sentence, np.ndarray] = {}
        self.seen_by_reader: set[Sentence] = set()

    @initialize(shard_bytes=st.sampled_from([1, 200, 1 << 20]), n_layers=st.sampled_from([1, 2]))
    def make(self, shard_bytes: int, n_layers: int) -> None:
        # Shards larger than what a session adds are committed by flush alone, so that the model can follow.
        self.reader = create(self.folder / "store.fs", shard_bytes=shard_bytes, n_layers=n_layers)
        self.n_layers = n_layers
        self.sessions = [self.reader.write(), self.reader.write()]
        self.pending: list[dict[Sentence, np.ndarray]] = [{}, {}]

    def _follow_commits(self, number: int) -> None:
        """Move to the model's committed part what a full shard made the session commit."""
        stored = {tokens for _, _, tokens in self.reader.refreshed().sentences()}
        for tokens in list(self.pending[number]):
            if tokens in stored:
                self.committed.setdefault(tokens, self.pending[number].pop(tokens))

    @rule(number=st.integers(0, 1), tokens=SENTENCES)
    def add(self, number: int, tokens: Sentence) -> None:
        vectors = vectors_of(tokens, n_layers=self.n_layers)
        is_new = self.sessions[number].add(tokens, vectors)
        if tokens in self.pending[number]:
            assert not is_new
        if is_new:
            self.pending[number][tokens] = vectors
        self._follow_commits(number)

    @rule(number=st.integers(0, 1))
    def flush(self, number: int) -> None:
        self.sessions[number].flush()
        for tokens, vectors in self.pending[number].items():
            self.committed.setdefault(tokens, vectors)
        self.pending[number].clear()

    @rule(number=st.integers(0, 1))
    def begin_another_session(self, number: int) -> None:
        self.flush(number)
        self.sessions[number].close()
        self.sessions[number] = self.reader.refreshed().write()

    @rule(access=st.sampled_from(["mmap", "pread"]), check=st.sampled_from(["first", "always", "never"]))
    def reopen(self, access: str, check: str) -> None:
        self.reader = Store.open(self.reader.path, access=access, check=check)
        self.seen_by_reader = set(self.committed)

    @rule()
    def refresh(self) -> None:
        self.reader = self.reader.refreshed()
        self.seen_by_reader = set(self.committed)

    @rule()
    def lose_the_index(self) -> None:
        shutil.rmtree(self.reader.path / "index", ignore_errors=True)

    @rule(tokens=SENTENCES)
    def read(self, tokens: Sentence) -> None:
        assert (tokens in self.reader) == (tokens in self.seen_by_reader)
        if tokens in self.seen_by_reader:
            np.testing.assert_array_equal(self.reader.get(tokens), self.committed[tokens])
        else:
            with pytest.raises(MissingSentencesError):
                self.reader.get(tokens)

    @precondition(lambda self: self.seen_by_reader)
    @rule(data=st.data())
    def read_many(self, data: st.DataObject) -> None:
        wanted = data.draw(
            st.lists(st.sampled_from(sorted(self.seen_by_reader, key=sentence_key)), max_size=6)
        )
        for tokens, found in zip(wanted, self.reader.get_many(wanted), strict=True):
            np.testing.assert_array_equal(found, self.committed[tokens])

    @rule()
    def iterate(self) -> None:
        listed = list(self.reader)
        assert len(listed) == len(self.reader)
        assert {tokens for tokens, _ in listed} == self.seen_by_reader
        for tokens, vectors in listed:
            np.testing.assert_array_equal(vectors, self.committed[tokens])

    @rule()
    def verify_all(self) -> None:
        assert list(verify(self.reader.refreshed())) == []

    @invariant()
    def nothing_is_stored_twice(self) -> None:
        if hasattr(self, "reader"):
            assert read_manifest(self.reader.path).n_sentences == len(self.committed)

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)
