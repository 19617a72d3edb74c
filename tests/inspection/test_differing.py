"""What corpora lack in a store, what no corpus uses, and stored sentences like the missing ones."""

from __future__ import annotations

import pytest

from featurestore.corpora.corpus import open_corpus
from featurestore.inspection.differing import diff_corpora
from featurestore.inspection.likeness import differs_in, normal_form, stored_likes
from featurestore.store.store import Store
from tests.kit.stores import RECIPE, vectors_of

STORED = [
    ("He", "said", '"', "no", '"', "."),
    ("ice-cream",),
    ("café", "au", "lait"),
    ("unused", "one"),
    ("b",),
]


@pytest.fixture
def store(tmp_path) -> Store:
    made = Store.create(tmp_path / "store", recipe=RECIPE, dim=8, shard_bytes=100)
    with made.write() as session:
        for tokens in STORED:
            session.add(tokens, vectors_of(tokens))
    return Store.open(tmp_path / "store")


def test_counts_by_corpus(store, tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text('He said " no " .\nnew here\nnew here\nb\n')
    second.write_text(
        "new here\nice-cream\nnewer\nhe said \u201c no \u201d .\ncafe\u0301 au lait\nice - cream\n"
    )
    found = diff_corpora(store, [open_corpus(str(first)), open_corpus(str(second))])
    a, b = found.corpora
    assert (a.n_sentences, a.n_tokens, a.n_distinct, a.n_missing, a.n_missing_tokens) == (4, 11, 3, 1, 2)
    assert (b.n_sentences, b.n_distinct, b.n_missing, b.n_missing_tokens) == (6, 5, 4, 13)
    assert (found.n_missing, found.n_stored) == (5, 5)
    unused = {store.reader(s).tokens(row) for s, rows in enumerate(found.unused.rows) for row in rows}
    assert unused == {("café", "au", "lait"), ("unused", "one")}
    assert (found.n_unused_tokens, found.n_unused_bytes) == (5, 5 * 8 * 2)
    assert [(one.tokens, one.place.rpartition("/")[2]) for one in a.missing] == [
        (("new", "here"), "a.txt, line 2")
    ]
    likes = {one.tokens: [(like.tokens, like.differs_in) for like in one.likes] for one in b.missing}
    assert likes == {
        ("newer",): [],
        ("he", "said", "\u201c", "no", "\u201d", "."): [(STORED[0], ("quotes", "case"))],
        ("cafe\u0301", "au", "lait"): [(STORED[2], ("Unicode form",))],
        ("ice", "-", "cream"): [(STORED[1], ("tokens",))],
    }


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (["ab"], ["a", "b"], ("tokens",)),
        (["a b"], ["a", "b"], ("tokens",)),
        (["``", "x", "''"], ['"', "x", '"'], ("quotes",)),
        (["don\u2019t"], ["don't"], ("quotes",)),
        (["\u00abX\u00bb"], ['"x"'], ("quotes", "case")),
        (["\ufb01sh"], ["fish"], ("Unicode form",)),
        (["a\u00a0b"], ["a", "b"], ("tokens",)),
        (["A", "b"], ["ab"], ("case", "tokens")),
        (["same"], ["same"], ()),
    ],
)
def test_what_two_sentences_differ_in(one, other, expected):
    assert normal_form(one) == normal_form(other)
    assert differs_in(one, other) == differs_in(other, one) == expected


def test_every_stored_sentence_is_found_by_another_spelling(tmp_path):
    texts = [
        "\u201cYes\u201d , she said",
        "GR\u00dcSSE",
        "x",
        "'' ''",
        "\u4eca\u65e5 \u306f",
        "\u0130zmir",
        "o\ud800dd",
    ]
    made = Store.create(tmp_path / "s", recipe=RECIPE, dim=8)
    with made.write() as session:
        for text in texts:
            session.add(tuple(text.split()), vectors_of(tuple(text.split())))
    store = Store.open(tmp_path / "s")
    for text in texts:
        tokens = tuple(text)  # every character apart
        tokens = tuple(t for t in tokens if not t.isspace())
        if tokens != tuple(text.split()):
            assert [like.tokens for like in stored_likes(store, [tokens])[tokens]] == [tuple(text.split())]
    assert stored_likes(store, [("nothing", "like", "it")]) == {}
