"""Batches of whole documents: sentences in order, each once, documents shuffled, state and shares exact."""

from __future__ import annotations

import numpy as np
import pytest
from torch.utils.data import Subset

from featurestore import BucketBatchSampler, Example, FeatureDataset, feature_loader
from featurestore.errors import StateError, UsageError
from tests.dataset.batches import make_store

N_DOCUMENTS = 90


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> FeatureDataset:
    store, corpus = make_store(tmp_path_factory.mktemp("s") / "s", ["float16"], n=500)
    sizes = np.random.default_rng(0).integers(1, 11, N_DOCUMENTS)
    names = [f"d{i}" for i in np.repeat(np.arange(N_DOCUMENTS), sizes)]
    return FeatureDataset(store, [Example(t, document=d) for t, d in zip(corpus, names, strict=False)])


def drawn(loader) -> list[list[int]]:
    return [batch.indices.tolist() for batch in loader]


def parted(dataset: FeatureDataset, batches: list[list[int]]) -> int:
    """Return how many documents are not whole in one batch, or not in order."""
    documents = dataset.documents
    where: dict[int, list[tuple[int, int]]] = {}
    for number, batch in enumerate(batches):
        for at, sentence in enumerate(batch):
            where.setdefault(int(documents[sentence]), []).append((number, at, sentence))
    return sum(
        len({number for number, _, _ in places}) > 1
        or [s for *_, s in places] != list(range(places[0][2], places[0][2] + len(places)))
        or [at for _, at, _ in places] != list(range(places[0][1], places[0][1] + len(places)))
        for places in where.values()
    )


@pytest.mark.parametrize(
    "options", [{}, {"shuffle": False}, {"order": "corpus"}, {"max_sentences": 12}], ids=str
)
def test_documents_stay_together_and_come_once_an_epoch(dataset, options):
    loader = feature_loader(dataset, token_budget=400, group_by="document", seed=1, **options)
    epochs = [drawn(loader) for _ in range(3)]
    for batches in epochs:
        assert sorted(i for batch in batches for i in batch) == list(range(len(dataset)))
        assert len(batches) == len(loader)
        assert parted(dataset, batches) <= 3
        for batch in batches:
            padded = len(batch) * max(int(dataset.lengths[i]) for i in batch)
            assert padded <= 400 or len(set(dataset.documents[batch])) == 1
    is_shuffled = not options.keys() & {"shuffle", "order"}
    assert (epochs[0] != epochs[1]) == is_shuffled
    if options == {"order": "corpus"}:
        assert [i for batch in epochs[0] for i in batch] == list(range(len(dataset)))
        assert parted(dataset, epochs[0]) == 0


def test_a_document_over_the_budget_is_cut_into_parts_that_follow_each_other(tmp_path):
    store, corpus = make_store(tmp_path / "s", ["float16"], n=60)
    dataset = FeatureDataset(store, [Example(t, document="all") for t in corpus])
    loader = feature_loader(dataset, token_budget=60, group_by="document")
    batches = sorted(drawn(loader))
    assert len(batches) > 5
    assert [i for batch in batches for i in batch] == list(range(60))


@pytest.mark.parametrize("n_processes", [2, 3])
def test_processes_share_documents(dataset, n_processes):
    options = {"token_budget": 400, "group_by": "document", "seed": 4}
    shares = [
        drawn(feature_loader(dataset, num_replicas=n_processes, rank=rank, **options))
        for rank in range(n_processes)
    ]
    assert len({len(share) for share in shares}) == 1
    together = [batch for share in shares for batch in share]
    assert sorted(i for batch in together for i in batch) == list(range(len(dataset)))
    assert parted(dataset, together) <= 3 + n_processes


def test_a_state_goes_on_where_it_was(dataset):
    def new(**other):
        return feature_loader(dataset, **{"token_budget": 400, "group_by": "document", "seed": 4, **other})

    expected = [drawn(loader) for loader in [new()] for _ in range(2)]
    loader = new()
    seen = []
    for batch in loader:
        seen.append(batch.indices.tolist())
        if len(seen) == 5:
            break
    state = loader.state_dict()
    resumed = new()
    resumed.load_state_dict(state)
    assert seen + drawn(resumed) == expected[0]
    assert drawn(resumed) == expected[1]
    with pytest.raises(StateError, match="groups"):
        new(group_by=None).load_state_dict(state)


def test_a_part_of_a_dataset_has_the_documents_of_its_sentences(dataset):
    chosen = np.flatnonzero(np.isin(dataset.documents, [3, 5, 50]))
    loader = feature_loader(Subset(dataset, chosen.tolist()), token_budget=1000, group_by="document")
    batches = drawn(loader)
    assert sorted(i for batch in batches for i in batch) == chosen.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_any_documents_fill_the_same_number_of_batches_each_epoch(seed):
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 60, int(random.integers(1, 2000)))
    starts = np.unique(np.append(0, random.integers(0, len(lengths), int(random.integers(1, 300)))))
    sampler = BucketBatchSampler(lengths, token_budget=int(random.integers(1, 900)), groups=starts, seed=seed)
    for epoch in range(3):
        batches = sampler.batches(epoch)
        assert len(batches) == len(sampler)
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))


def test_what_makes_no_sense_is_refused(dataset, tmp_path):
    store, corpus = make_store(tmp_path / "s", ["float16"], n=5)
    plain = FeatureDataset(store, corpus)
    with pytest.raises(UsageError, match="does not tell documents apart"):
        feature_loader(plain, group_by="document")
    with pytest.raises(UsageError, match="group_by='paragraph'"):
        feature_loader(dataset, group_by="paragraph")
    with pytest.raises(UsageError, match="leave out window or group_by"):
        feature_loader(dataset, group_by="document", window=1 << 20)
    for groups in ([1, 2], [0, 0], [0, 9], [0.5], [[0]], []):
        with pytest.raises(UsageError, match="groups: expected the positions"):
            BucketBatchSampler([3, 4, 5], groups=groups)
