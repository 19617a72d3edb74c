"""Our sampler in torchdata's StatefulDataLoader: a state goes on where it was, also after a whole epoch."""

from __future__ import annotations

import pytest

from featurestore import FeatureDataset, collate, feature_loader
from tests.dataset.batches import make_store

N_EPOCHS = 4


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> FeatureDataset:
    store, corpus = make_store(tmp_path_factory.mktemp("s") / "s", ["float16"], n=60)
    return FeatureDataset(store, corpus)


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("moment", ["after an epoch", "at its last batch", "within it"])
def test_a_state_goes_on_where_it_was(dataset, n_workers, moment):
    torchdata = pytest.importorskip("torchdata.stateful_dataloader", reason="needs torchdata")

    def new():
        sampler = feature_loader(dataset, token_budget=60, seed=3).batch_sampler
        return torchdata.StatefulDataLoader(
            dataset, batch_sampler=sampler, collate_fn=collate, num_workers=n_workers,
            multiprocessing_context="fork" if n_workers else None,
        )  # fmt: skip

    def passed(loader) -> list[list[int]]:
        return [batch.indices.tolist() for batch in loader]

    loader = new()
    epochs = [passed(loader) for _ in range(N_EPOCHS)]
    loader = new()
    assert passed(loader) == epochs[0]
    n_taken = {"after an epoch": 0, "at its last batch": len(epochs[1]), "within it": 3}[moment]
    seen = []
    if n_taken:
        for batch in loader:
            seen.append(batch.indices.tolist())
            if len(seen) == n_taken:
                break
    state = loader.state_dict()
    resumed = new()
    resumed.load_state_dict(state)
    if moment == "at its last batch":
        # torchdata's own loaders, too, give one empty pass then.
        rest = passed(resumed)
        assert rest in ([], epochs[2])
        assert (passed(resumed) if rest == [] else rest) == epochs[2]
        return
    assert seen + passed(resumed) == epochs[1]
    assert passed(resumed) == epochs[2]
