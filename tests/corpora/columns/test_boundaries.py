"""Column files without blank lines, parted where the caller says; rows without a token, skipped."""

import pytest

from featurestore.corpora.corpus import open_corpus
from featurestore.corpora.observed import ObservedCorpus
from featurestore.errors import CorpusError, LabelError, UsageError


def sentences(found):
    return [" ".join(tokens) for tokens, _, _ in found]


def rows(*words):
    return "".join(f"{word}\tO\n" for word in words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Anna sings . Oslo sleeps !", ["Anna sings .", "Oslo sleeps !"]),
        ("Anna sings . Oslo sleeps", ["Anna sings .", "Oslo sleeps"]),
        ("who ? ! . . . me", ["who ? ! . . .", "me"]),
        ('" Go . " he said . " No ', ['" Go . "', "he said .", '" No']),
        ("( Go . ) Then", ["( Go . )", "Then"]),
        ("„ Geh . “ Er ging . “ no", ["„ Geh . “", "Er ging .", "“ no"]),
        ("» Geh . « Er ging . » so", ["» Geh . «", "Er ging .", "» so"]),
        ("« Va . » Il va . « non", ["« Va . »", "Il va .", "« non"]),
        (". Go", [".", "Go"]),
        ("Dr. No , 3.5 e.g. x", ["Dr. No , 3.5 e.g. x"]),
        ("वह गया । वह आया ॥ नहीं", ["वह गया ।", "वह आया ॥", "नहीं"]),
        ("他 走 了 。 ” 我 来", ["他 走 了 。 ”", "我 来"]),
        ("?", ["?"]),
        (
            "Sie haben erhalten. Der Kayserl. hof (er ging.) Ende",
            ["Sie haben erhalten.", "Der Kayserl. hof (er ging.)", "Ende"],
        ),
        ("Prof. Mann ging . Er kam .", ["Prof. Mann ging .", "Er kam ."]),
    ],
)
def test_sentences_end_behind_final_punctuation(read, text, expected):
    assert sentences(read(rows(*text.split()), boundaries="punctuation")) == expected


def test_places_and_labels_go_with_the_words(read):
    content = "-DOCSTART- O\n\na B-X\n. O\nb O\n! O\n\nc O\n"
    assert read(content, label=2, boundaries="punctuation") == [
        (("a", "."), ("B-X", "O"), 3),
        (("b", "!"), ("O", "O"), 5),
        (("c",), ("O",), 8),
    ]
    numbered = "1\tEs\n2-3\tzum\n2\tzu\n3\t.\n4\tdem\n"
    assert read(numbered, text_column=2, boundaries="punctuation") == [
        (("Es", "zu", "."), None, 1),
        (("dem",), None, 5),
    ]


@pytest.mark.parametrize(
    ("boundaries", "expected"),
    [
        (2, ["a b", ". c", "d e"]),
        ("4", ["a b . c", "d e"]),
        ("punctuation,2", ["a b", ".", "c d", "e"]),
        ("3,punctuation", ["a b .", "c d e"]),
        (6, ["a b . c d e"]),
    ],
)
def test_sentences_of_so_many_words_at_most(read, boundaries, expected):
    found = read(rows(*["a", "b", ".", "c", "d", "e"]), boundaries=boundaries)
    assert sentences(found) == expected
    assert [line for _, _, line in found] == [
        sum(len(s.split()) for s in expected[:i]) + 1 for i in range(len(expected))
    ]


@pytest.mark.parametrize("given", ["full-stop", 0, "", True, 2.5, "3,4", "punctuation,punctuation", "-1"])
def test_boundaries_that_are_none(read, given):
    with pytest.raises(UsageError, match=r"boundaries is .*(expected punctuation, a number|from 1 to)"):
        read(rows("a"), boundaries=given)


def test_only_column_files_have_no_boundaries(read):
    with pytest.raises(UsageError, match="boundaries makes no sense for the format text, only for conll"):
        read("a b\n", "a.txt", boundaries=3)


def test_the_warning_names_what_mends_it(tmp_path):
    path = tmp_path / "a.bio"
    path.write_text(rows(*["word", "."] * 600))
    corpus = ObservedCorpus(open_corpus(path))
    assert len(list(corpus)) == 1
    [warning] = corpus.reading.warnings
    assert warning.kind == "long-sentence"
    assert "--boundaries punctuation,100" in warning.message
    mended = ObservedCorpus(open_corpus(path, boundaries="punctuation,100"))
    assert len(list(mended)) == 600
    assert mended.reading.warnings == ()


# --- Rows without a token ---

EMPTY = "Anna\tB-PER\n\tO\n \tX\nsings\tO\n\n\tO\n\nOslo\tB-LOC\n"
KEPT = [(("Anna", "sings"), ("B-PER", "O"), 1), (("Oslo",), ("B-LOC",), 8)]


def test_rows_without_a_token_are_skipped_and_counted(tmp_path, read, caplog):
    assert read(EMPTY, label=2, empty_token="skip") == KEPT
    with pytest.raises(CorpusError, match=r"line 2: the token column is empty.*--empty-token skip"):
        read(EMPTY, label=2)
    corpus = ObservedCorpus(open_corpus(tmp_path / "corpus.conll", empty_token="skip"))
    caplog.clear()
    for _ in range(2):
        assert len(list(corpus)) == 2
        assert (corpus.n_skipped, corpus.reading.n_skipped) == (3, 3)
    said = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert said == ["skipped 3 rows without a token, first line 2"]


def test_a_token_that_is_there_still_needs_its_label(read):
    with pytest.raises(LabelError, match="line 3: column 2, asked for as label, is empty"):
        read("a\tO\n\t\nb\t\n", label=2, empty_token="skip")


def test_words_of_conllu_and_tokens_of_json_may_be_skipped_too(read):
    row = "{}\t{}\t_\t{}\t_\t_\t0\troot\t_\t_\n"
    content = row.format(1, "a", "X") + row.format(2, " ", "_") + row.format(3, "b", "Y") + "\n"
    found = [(("a", "b"), ("X", "Y"), 1)]
    assert read(content, "a.conllu", label="upos", empty_token="skip") == found
    with pytest.raises(CorpusError, match=r"line 2: the FORM column is empty.*--empty-token skip"):
        read(content, "a.conllu")
    content = '{"tokens": ["a", "", "b"], "tags": ["X", null, "Y"]}\n{"tokens": [""], "tags": ["X"]}\n'
    assert read(content, "a.jsonl", label="tags", empty_token="skip") == found
    with pytest.raises(CorpusError, match=r"line 1: token 1 .* is an empty string.*--empty-token skip"):
        read(content, "a.jsonl")


def test_an_unknown_way(read):
    with pytest.raises(UsageError, match="empty_token is 'ignore': expected error or skip"):
        read("a\n", empty_token="ignore")
