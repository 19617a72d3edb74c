"""A run that ended after any commit and was started again writes the bytes of an undisturbed one."""

from __future__ import annotations

import shutil

import pytest

from featurestore import Store, extract, load_encoder
from tests.kit.places import DATA


@pytest.mark.parametrize("n_commits", [2, 4, 7])
def test_shards_are_the_same_with_the_real_encoder(tmp_path, tiny_elmo_spec, n_commits):
    # float32, so that a difference in the last bit is one on disk; small batches, so that few word types come
    # new with each; a fresh encoder, as a new process has.
    def run(store) -> None:
        encoder = load_encoder(tiny_elmo_spec, device="cpu")
        extract(
            DATA / "tagging" / "train.conllu",
            encoder,
            store,
            codec="float32",
            shard_bytes=20_000,
            token_budget=40,
            progress=False,
        )

    run(tmp_path / "whole")
    whole = Store.open(tmp_path / "whole").manifest
    assert len(whole.shards) > 8

    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    for manifest in (tmp_path / "killed" / "manifests").iterdir():
        if int(manifest.stem) > n_commits:
            manifest.unlink()
    kept = {shard.name for shard in Store.open(tmp_path / "killed").manifest.shards}
    for shard in (tmp_path / "killed" / "shards").iterdir():
        if shard.name not in kept:
            shard.unlink()
    assert len(kept) == n_commits - 1

    run(tmp_path / "killed")
    assert [shard.sha256 for shard in Store.open(tmp_path / "killed").manifest.shards] == [
        shard.sha256 for shard in whole.shards
    ]
