"""Tokens to character ids."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featurestore.encoders.elmo.model.characters import character_ids
from tests.kit.elmo import GOLDEN, golden_network, run

BEGIN, END, PADDING = 259, 260, 261


def ids_of(token):
    return character_ids([token])[0][0].tolist()


def test_every_golden_token():
    golden = json.loads((GOLDEN / "char_ids.json").read_text(encoding="utf-8"))
    tokens = list(golden)
    assert len(tokens) > 300
    ids, _ = character_ids(tokens)
    np.testing.assert_array_equal(ids, [golden[token] for token in tokens])


def test_ascii():
    assert ids_of("ab") == [BEGIN, ord("a") + 1, ord("b") + 1, END] + [PADDING] * 46


def test_non_ascii_is_its_utf8_bytes():
    assert ids_of("é")[:4] == [BEGIN, 0xC3 + 1, 0xA9 + 1, END]


def test_cut_to_48_bytes_in_the_middle_of_a_character():
    token = "x" + "字" * 20  # 1 + 60 bytes: byte 48 is the second of a character's three
    encoded = token.encode()
    assert ids_of(token) == [BEGIN, *(byte + 1 for byte in encoded[:48]), END]
    try:
        encoded[:48].decode()
    except UnicodeDecodeError:
        return
    raise AssertionError("the example does not cut a character in two")


def test_48_bytes_fit_and_49_are_cut():
    assert ids_of("a" * 48) == ids_of("a" * 49)
    assert ids_of("a" * 47) != ids_of("a" * 48)


def test_sentence_markers_and_their_literal_look_alikes():
    assert ids_of("<S>") == [BEGIN, 257, END] + [PADDING] * 47
    assert ids_of("</S>") == [BEGIN, 258, END] + [PADDING] * 47
    assert ids_of("<s>")[1] == ord("<") + 1


def test_lone_surrogates_are_left_out():
    assert ids_of("a\ud800b") == ids_of("ab")
    assert ids_of("\ud800") == [BEGIN, END] + [PADDING] * 48


def test_zero_bytes_are_characters():
    assert ids_of("a\0") == [BEGIN, ord("a") + 1, 1, END] + [PADDING] * 46


@given(st.lists(st.text(max_size=60), min_size=1, max_size=8))
def test_tokens_are_independent_of_their_neighbours(tokens):
    ids, n_positions = character_ids(tokens)
    for row, token in enumerate(tokens):
        assert ids[row].tolist() == ids_of(token)
        assert (ids[row, n_positions[row] :] == PADDING).all()
        assert ids[row, n_positions[row] - 1] == END
    assert ids.min() >= 1


def test_literal_marker_gets_the_marker_vector_within_a_sentence():
    network = golden_network()
    with_literal = run(network, [["a", "<S>", "b"]])[0]
    spelled_otherwise = run(network, [["a", "<s>", "b"]])[0]
    assert not np.allclose(with_literal[0, 1], spelled_otherwise[0, 1])
