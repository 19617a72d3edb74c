"""FeatureDataset: what an item and a batch hold, against the store itself."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence
from torch.utils.data import ConcatDataset, DataLoader, Subset

from featurestore import Example, FeatureDataset, Store, collate, extract, open_corpus
from featurestore.dataset.batch import collate_packed
from featurestore.errors import LabelError, SentenceError, UsageError

EMPTY = "\t_"


def tensor_of(store: Store, example: Example) -> torch.Tensor:
    return torch.from_numpy(store.get(example.tokens))


@pytest.fixture
def store(example_store) -> Store:
    return Store.open(example_store)


@pytest.fixture(scope="module")
def layered_path(tmp_path_factory, tiny_elmo_spec, examples) -> Path:
    """Three layers kept apart, int8."""
    path = tmp_path_factory.mktemp("layered") / "store"
    extract(examples, tiny_elmo_spec, path, layers="all", codec="int8", device="cpu", progress=False)
    return path


@pytest.fixture
def dataset(store, examples) -> FeatureDataset:
    return FeatureDataset(store, examples)


def test_items_are_the_stored_vectors_in_the_order_of_the_examples(dataset, store, examples):
    assert len(dataset) == len(examples)
    assert dataset.lengths.tolist() == [len(example.tokens) for example in examples]
    for position, example in enumerate(examples):
        item = dataset[position]
        assert torch.equal(item.features, tensor_of(store, example))
        assert item.position == position
        assert dataset.tokens(position) == example.tokens


def test_it_takes_what_extract_takes(tmp_path, tiny_elmo):
    path, store = tmp_path / "corpus.conllu", tmp_path / "store"
    path.write_text("".join(f"1\t{word}{EMPTY * 8}\n\n" for word in "abc"))
    extract(path, tiny_elmo, store, progress=False)
    for given in (path, str(path), [path], open_corpus(path), [["a"], ("b",), ["c"]]):
        dataset = FeatureDataset(store, given)
        assert [dataset.tokens(i) for i in range(len(dataset))] == [("a",), ("b",), ("c",)]
        assert dataset.label_kind is None


@pytest.mark.parametrize("on_missing", ["error", "skip", "zeros"])
def test_a_text_is_no_list_of_its_characters(store, on_missing):
    with pytest.raises(SentenceError, match="sentence 1: a sentence is a list of tokens, not one str"):
        FeatureDataset(store, [["a"], "The cat sat."], on_missing=on_missing)


def test_it_knows_the_shape_and_recipe_of_its_vectors(dataset, store):
    assert (dataset.dim, dataset.n_layers, dataset.recipe) == (32, 1, store.recipe)


def test_indices_count_from_the_end_too_and_end_somewhere(dataset, examples):
    assert torch.equal(dataset[-1].features, dataset[59].features)
    assert torch.equal(dataset[-1].label, dataset[59].label)
    assert dataset.gold(-1) == examples[-1].labels
    assert dataset.tokens(-2) == examples[-2].tokens
    assert torch.equal(dataset.gather([-1]).labels, dataset.gather([59]).labels)
    assert dataset.gather([-1]).indices.tolist() == [59]
    for read in (dataset.__getitem__, dataset.gold, dataset.tokens, lambda i: dataset.gather([i])):
        for outside in (60, -61):
            with pytest.raises(IndexError, match=f"example {outside} of 60"):
                read(outside)


@pytest.mark.parametrize("integer", [np.int64(7), np.uint8(7), np.array(7), torch.tensor(7)])
def test_integers_of_numpy_and_torch_are_indices(dataset, examples, integer):
    assert dataset[integer].position == 7
    assert (dataset.tokens(integer), dataset.gold(integer)) == (examples[7].tokens, examples[7].labels)
    assert dataset.gather([integer, integer]).indices.tolist() == [7, 7]
    assert dataset.gather(np.array([3, 7], np.int32)).indices.tolist() == [3, 7]
    assert dataset.gather(torch.tensor([3, 7])).indices.tolist() == [3, 7]


@pytest.mark.parametrize(
    "index", [1.0, 1.5, True, np.True_, torch.tensor(True), "1", None, slice(0, 5), [1, 2], np.array([1, 2])]
)
def test_nothing_but_an_integer_is_an_index(dataset, index):
    for read in (dataset.__getitem__, dataset.gold, dataset.tokens):
        with pytest.raises(UsageError, match=r"one integer, not by .*gather\(positions\).*Subset"):
            read(index)


@pytest.mark.parametrize("indices", [[1.7], np.array([0.0]), 5, "12", [[1, 2]], [[1], [2, 3]], None, ["1"]])
def test_nothing_but_integers_in_a_row_are_the_indices_of_a_batch(dataset, indices):
    with pytest.raises(UsageError, match="positions of its examples, integers in a row"):
        dataset.gather(indices)


def test_a_mask_is_no_list_of_indices(dataset):
    mask = dataset.lengths > 4
    for given in (mask, mask.tolist(), torch.from_numpy(mask)):
        with pytest.raises(UsageError, match="a mask becomes positions by numpy"):
            dataset.gather(given)
    assert dataset.gather(np.flatnonzero(mask)).lengths.min() > 4


def test_the_lengths_cannot_be_changed(dataset):
    with pytest.raises(ValueError, match="read-only"):
        dataset.lengths[0] = 1


@pytest.mark.parametrize("labels", [None, "sentence", "token"])
@pytest.mark.parametrize("resident", [None, "cpu"])
def test_no_indices_are_an_empty_batch(store, examples, labels, resident):
    kinds = {None: None, "sentence": "A", "token": examples[0].labels}
    dataset = FeatureDataset(store, [Example(examples[0].tokens, kinds[labels])], resident=resident)
    for packed in (False, True):
        batch = dataset.gather([], packed=packed)
        assert len(batch) == len(batch.indices) == batch.mask.numel() == 0
        assert (batch.labels is None) == (labels is None)
        assert labels is None or batch.labels.numel() == 0
        features = batch.features.data if packed else batch.features
        assert (features.shape[-1], features.numel(), features.dtype) == (32, 0, torch.float32)


@pytest.mark.parametrize("dtype", ["float16", np.float32, None, torch.int64, torch.bool, torch.complex64])
def test_features_have_a_floating_dtype_of_torch(store, examples, dtype):
    with pytest.raises(UsageError, match=r"dtype is .*, expected a floating one of torch"):
        FeatureDataset(store, examples, dtype=dtype)


def test_a_padded_batch_has_zeros_lengths_mask_and_minus_100_in_the_padding(dataset, store, examples):
    chosen = [3, 41, 7, 0, 22]
    batch = dataset.gather(chosen)
    lengths = [len(examples[i].tokens) for i in chosen]
    longest = max(lengths)
    assert len(set(lengths)) > 1
    assert batch.features.shape == (5, longest, 32)
    assert (batch.lengths.tolist(), batch.indices.tolist(), len(batch)) == (lengths, chosen, 5)
    for row, (position, n) in enumerate(zip(chosen, lengths, strict=True)):
        assert torch.equal(batch.features[row, :n], tensor_of(store, examples[position]))
        assert torch.all(batch.features[row, n:] == 0)
        assert batch.mask[row].tolist() == [True] * n + [False] * (longest - n)
        assert [dataset.label_names[i] for i in batch.labels[row, :n]] == list(examples[position].labels)
        assert torch.all(batch.labels[row, n:] == -100)


def test_packed_batches_hold_the_same_as_padded_ones(dataset):
    chosen = [5, 2, 9, 30]
    padded, packed = collate(dataset.__getitems__(chosen)), collate_packed(dataset.__getitems__(chosen))
    assert isinstance(packed.features, PackedSequence)
    features, lengths = pad_packed_sequence(packed.features, batch_first=True)
    assert torch.equal(features, padded.features)
    assert torch.equal(lengths, padded.lengths)
    assert len(packed.labels) == len(packed.features.data) == int(padded.lengths.sum())
    labels = PackedSequence(
        packed.labels, packed.features.batch_sizes,
        packed.features.sorted_indices, packed.features.unsorted_indices,
    )  # fmt: skip
    found, _ = pad_packed_sequence(labels, batch_first=True, padding_value=-100)
    assert torch.equal(found, padded.labels)
    assert packed.packed() is packed


def test_sentence_labels_stay_one_per_sentence_when_packed(store, examples):
    dataset = FeatureDataset(store, [Example(e.tokens, e.labels[-1]) for e in examples])
    assert torch.equal(dataset.gather([4, 1]).packed().labels, dataset.gather([4, 1]).labels)


def test_a_batch_moves_to_a_device_whole(dataset):
    batch = dataset.gather([1, 2, 3])
    moved = batch.to("meta")
    for name in ("features", "lengths", "mask", "labels", "indices"):
        assert getattr(moved, name).device.type == "meta"
        assert getattr(moved, name).shape == getattr(batch, name).shape
    assert batch.packed().to("meta").features.data.device.type == "meta"
    unlabelled = FeatureDataset(dataset.store, [dataset.tokens(0)]).gather([0])
    assert unlabelled.to("cpu").labels is None


def test_layers_kept_apart_give_one_more_dimension(layered_path, examples):
    store = Store.open(layered_path)
    dataset = FeatureDataset(store, examples)
    assert (dataset.n_layers, dataset.dim) == (3, 32)
    batch = dataset.gather([0, 1, 2])
    longest = max(len(example.tokens) for example in examples[:3])
    assert batch.features.shape == (3, longest, 3, 32)
    n = len(examples[1].tokens)
    # int8: torch and NumPy may round the two products differently by a unit in the last place.
    torch.testing.assert_close(batch.features[1, :n], tensor_of(store, examples[1]), rtol=1e-6, atol=0)
    assert torch.all(batch.features[1, n:] == 0)
    assert dataset.gather([0, 1]).packed().features.data.shape[1:] == (3, 32)


@pytest.mark.parametrize("access", ["mmap", "pread"])
@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_every_codec_and_access_reads_what_the_store_reads(tmp_path, tiny_elmo, examples, codec, access):
    extract(examples, tiny_elmo, tmp_path / "store", codec=codec, progress=False)
    store = Store.open(tmp_path / "store", access=access)
    batch = FeatureDataset(store, examples).gather(range(len(examples)))
    tolerance = 1e-6 if codec == "int8" else 0
    for row, example in enumerate(examples):
        found = batch.features[row, : len(example.tokens)]
        torch.testing.assert_close(found, tensor_of(store, example), rtol=tolerance, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_features_come_in_the_dtype_asked_for(store, examples, dtype):
    dataset = FeatureDataset(store, examples, dtype=dtype)
    expected = tensor_of(store, examples[4]).to(dtype)
    assert torch.equal(dataset[4].features, expected)
    assert torch.equal(dataset.gather([4]).features[0], expected)
    assert collate([dataset[4], dataset[5]]).features.dtype == dtype


def test_a_plain_dataloader_collates_a_list_of_items(dataset):
    batches = list(DataLoader(dataset, batch_size=7, collate_fn=collate))
    assert [i for batch in batches for i in batch.indices.tolist()] == list(range(60))
    # Item by item, without the dataset's own way of reading a batch at once.
    by_item = collate([dataset[i] for i in range(7)])
    for name in ("features", "lengths", "mask", "labels", "indices"):
        assert torch.equal(getattr(batches[0], name), getattr(by_item, name))


def test_a_subset_works_like_the_dataset(dataset):
    subset = Subset(dataset, [9, 3, 44])
    [batch] = DataLoader(subset, batch_size=4, collate_fn=collate)
    assert batch.indices.tolist() == [9, 3, 44]
    assert torch.equal(batch.features, dataset.gather([9, 3, 44]).features)


def test_any_collate_function_sees_items(dataset):
    [sizes] = DataLoader(dataset, batch_size=60, collate_fn=lambda items: [len(i.features) for i in items])
    assert sizes == dataset.lengths.tolist()
    assert [item.position for item in dataset.__getitems__([5, 6, 7])[1:]] == [6, 7]


def same_batches(one, other) -> bool:
    names = ("features", "lengths", "mask", "labels", "indices")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


def test_a_collate_function_may_treat_the_items_as_its_list(dataset):
    def longest_first(items):
        items.sort(key=lambda item: len(item.features), reverse=True)
        del items[5:]
        items[0], items[1] = items[1], items[0]
        items.append(items.pop(2))
        doubled = [dataset[0]] + items + [dataset[1]]  # noqa: RUF005
        assert [item.position for item in doubled] == [0, *(item.position for item in items.copy()), 1]
        return collate(items)

    lengths = dataset.lengths[:20]
    a, b, c, d, e = np.argsort(-lengths, kind="stable")[:5].tolist()
    [batch] = DataLoader(Subset(dataset, range(20)), batch_size=20, collate_fn=longest_first)
    assert batch.indices.tolist() == [b, a, d, e, c]
    assert same_batches(batch, dataset.gather([b, a, d, e, c]))


def test_a_collate_function_may_collate_by_ours(dataset):
    [(batch, n)] = DataLoader(dataset, batch_size=60, collate_fn=lambda items: (collate(items), len(items)))
    assert n == 60
    assert same_batches(batch, dataset.gather(range(60)))


def test_an_item_of_a_batch_is_read_once(dataset):
    items = dataset.__getitems__([5, 6, 7])
    assert items[1].features.data_ptr() == items[1].features.data_ptr() == [*items][1].features.data_ptr()
    items[1].features.fill_(7)
    assert torch.all(collate(items).features[1][: dataset.lengths[6]] == 7)


@pytest.mark.parametrize("n_workers", [0, 1])
def test_items_come_back_uncollated_if_asked_for(dataset, n_workers):
    loader = DataLoader(dataset, batch_size=30, collate_fn=as_they_are, num_workers=n_workers)
    for number, items in enumerate(loader):
        assert [item.position for item in items] == list(range(30 * number, 30 * number + 30))
        assert torch.equal(items[3].features, dataset[30 * number + 3].features)


def as_they_are(items):
    return items


def test_datasets_put_together_have_labels_of_one_kind(store, examples):
    kinds = {
        "a label for each token": [examples[0]],
        "a label for the sentence": [Example(examples[1].tokens, "A")],
        "no label": [examples[2].tokens],
    }
    datasets = {kind: FeatureDataset(store, given) for kind, given in kinds.items()}
    for one, other in itertools.permutations(kinds, 2):
        both = ConcatDataset([datasets[one], datasets[other]])
        with pytest.raises(LabelError, match=f"item 1 of the batch has {other}, but item 0 has {one}"):
            list(DataLoader(both, batch_size=2, collate_fn=collate))
    same = ConcatDataset([datasets["no label"]] * 2)
    assert next(iter(DataLoader(same, batch_size=2, collate_fn=collate))).labels is None


def test_no_items_are_no_batch(dataset):
    for collating in (collate, collate_packed):
        with pytest.raises(UsageError, match="collate: there are no items"):
            collating([])
        assert len(collating(dataset.__getitems__([]))) == 0


def test_the_same_sentence_twice_is_two_examples_with_labels_of_their_own(store, examples):
    tokens = examples[0].tokens
    dataset = FeatureDataset(store, [Example(tokens, "good"), Example(tokens, "bad")])
    assert torch.equal(dataset[0].features, dataset[1].features)
    assert (dataset.gold(0), dataset.gold(1)) == ("good", "bad")


def test_the_dataset_pickles_without_its_vectors(dataset):
    dataset.gather(range(60))
    data = pickle.dumps(dataset)
    assert len(data) < 20_000 < dataset.store.n_bytes
    copy = pickle.loads(data)
    assert torch.equal(copy.gather([7, 8]).features, dataset.gather([7, 8]).features)


def test_no_examples_are_an_empty_dataset(store):
    dataset = FeatureDataset(store, [])
    assert len(dataset) == 0
    assert len(dataset.labels) == 0


def test_a_whole_batch_adds_and_shows_as_the_list_it_stands_for(dataset):
    items = dataset.__getitems__([4, 1])
    assert [item.position for item in items.__add__([dataset[0]])] == [4, 1, 0]
    assert [item.position for item in items.__radd__([dataset[0]])] == [0, 4, 1]
    assert repr(dataset.__getitems__([4, 1])) == repr(list(dataset.__getitems__([4, 1])))


def test_labels_of_sentences_are_stacked_and_counted(store, examples):
    labelled = [Example(e.tokens, "long" if len(e.tokens) > 6 else "short") for e in examples]
    dataset = FeatureDataset(store, labelled)
    batch = collate([dataset[0], dataset[1], dataset[2]])
    assert batch.labels.shape == (3,)
    assert [dataset.labels.names[i] for i in batch.labels] == [e.labels for e in labelled[:3]]
    expected = [e.labels for e in labelled]
    assert dataset.label_counts == {name: expected.count(name) for name in ("long", "short")}


def test_a_store_says_what_it_is(store):
    assert repr(store).startswith(
        f"Store({str(store.path)!r}, snapshot {store.snapshot}: {len(store):,} sentences"
    )


DOCUMENTS = [("a", ""), ("b", "1"), ("c", "1"), ("d", "2"), ("e", "1")]


def test_it_knows_where_documents_begin(tmp_path, tiny_elmo):
    examples = [Example((word,), document=name) for word, name in DOCUMENTS]
    store = tmp_path / "store"
    extract(examples[:2] + examples[3:], tiny_elmo, store, progress=False)
    dataset = FeatureDataset(store, examples, on_missing="zeros")
    assert dataset.document_starts.tolist() == [0, 1, 3, 4]
    assert dataset.documents.tolist() == [0, 1, 1, 2, 3]
    skipping = FeatureDataset(store, examples, on_missing="skip")
    assert skipping.documents.tolist() == [0, 1, 2, 3]
    untold = FeatureDataset(store, [("a",), ("b",)])
    assert untold.documents is None
    assert untold.document_starts.tolist() == []


def test_documents_of_two_files_are_different_ones(tmp_path, tiny_elmo):
    paths = [tmp_path / name for name in ("one.conllu", "two.conllu")]
    for path in paths:
        path.write_text(f"# newdoc\n1\ta{EMPTY * 8}\n\n1\tb{EMPTY * 8}\n\n")
    extract(paths, tiny_elmo, tmp_path / "store", progress=False)
    assert FeatureDataset(tmp_path / "store", paths).documents.tolist() == [0, 0, 1, 1]
