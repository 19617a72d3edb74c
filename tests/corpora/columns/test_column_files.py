"""CoNLL and CoNLL-U files."""

import pytest

from featurestore.corpora.contract.example import Example
from featurestore.corpora.corpus import open_corpus
from featurestore.errors import CorpusError, LabelError, UsageError


def word(number, form, upos="NOUN", feats="_", misc="_"):
    return f"{number}\t{form}\t_\t{upos}\t_\t{feats}\t_\t_\t_\t{misc}\n"


# --- CoNLL ---


@pytest.mark.parametrize("separator", ["\t", " ", "   "])
def test_columns_by_tab_or_spaces(read, separator):
    content = "EU|NNP|B-ORG\nrejects|VBZ|O\n\nPeter|NNP|B-PER\n".replace("|", separator)
    assert read(content, label="last") == [
        (("EU", "rejects"), ("B-ORG", "O"), 1),
        (("Peter",), ("B-PER",), 4),
    ]
    assert read(content, label="2")[0][1] == ("NNP", "VBZ")
    assert read(content, text_column="2", label="1")[1] == (("NNP",), ("Peter",), 4)
    assert read(content)[0] == (("EU", "rejects"), None, 1)


def test_one_column(read):
    assert read("#\nEU\n#tag\n\n.\n") == [(("#", "EU", "#tag"), None, 1), ((".",), None, 5)]


def test_spaces_inside_the_fields_of_a_tab_file(read):
    assert read("New York\tB LOC\n\u00a0\tO\n", label="last") == [(("New York", "\u00a0"), ("B LOC", "O"), 1)]


def test_docstart_and_whitespace_lines_end_sentences(read):
    content = "-DOCSTART- -X- O\n\na X O\n \t \nb X O\n-DOCSTART- -X- O\nc X O\n\n\n\n"
    assert [tokens for tokens, _, _ in read(content)] == [("a",), ("b",), ("c",)]


def test_crlf_and_trailing_spaces(read):
    assert read("a X \r\nb Y\r\n\r\nc Z\r\n", label="last") == [
        (("a", "b"), ("X", "Y"), 1),
        (("c",), ("Z",), 4),
    ]


def test_comments_before_a_sentence_only(read):
    content = "# id 7\n# text = a #\na\tX\n#\tY\n\n# next\n#b\tX\n#\tY\n"
    assert read(content, label="last") == [(("a", "#"), ("X", "Y"), 3), (("#b", "#"), ("X", "Y"), 7)]


def test_hash_as_the_first_token_of_a_conll_2003_file(read):
    content = (
        "# NN B-NP O\n1 CD I-NP O\n\n# sent = 2\n# comment of another length\n# NN B-NP O\n2 CD I-NP O\n"
    )
    assert read(content) == [(("#", "1"), None, 1), (("#", "2"), None, 6)]


def test_comments_alone_are_no_sentences(read):
    with pytest.raises(CorpusError, match="no sentences in the file, read as conll"):
        read("# a\n\n# b\n")
    with pytest.raises(CorpusError, match="the first 10,000 lines hold no token line"):
        read("# a\n" * 20_000)


def test_inconsistent_columns_name_both_lines(read):
    with pytest.raises(CorpusError, match=r"line 4: expected 2 columns \(as on line 2\), found 3: 'b X Y'"):
        read("# x y z\na X\n\nb X Y\n")
    with pytest.raises(CorpusError, match=r"line 2: expected 2 columns .* found 1"):
        read("a\tX\nb Y\n")
    with pytest.raises(CorpusError, match=r"line 2: expected 2 columns .* found 1: '#'"):
        read("a\tX\n#\n")


def test_empty_token_or_label(read):
    with pytest.raises(CorpusError, match="line 2: the token column is empty"):
        read("a\tX\n\tX\n")
    with pytest.raises(
        LabelError, match=r"line 2: column 2, asked for as label, is empty \(the line is \['b', ''\]\)"
    ):
        read("a\tX\nb\t\n", label="2")


def test_column_that_is_not_there(read):
    with pytest.raises(
        LabelError, match=r"no column number 3, asked for as label: .* 2 .*number from 1 to 2"
    ):
        read("a X\n", label="3")
    with pytest.raises(LabelError, match="no column 'ner', asked for as label"):
        read("a X\n", label="ner")
    with pytest.raises(CorpusError, match="no column number 9, asked for as text column"):
        read("a X\n", text_column="9")
    for bad in ("0", "-1"):
        with pytest.raises(UsageError, match=f"label {bad}: columns are counted from 1"):
            read("a X\n", label=bad)
    with pytest.raises(UsageError, match="label is empty"):
        read("a X\n", label="")


def test_columns_are_numbers_too(read):
    assert read("a X\nb Y\n", text_column=2, label=1) == [(("X", "Y"), ("a", "b"), 1)]
    assert read(word(1, "a", "DET"), "c.conllu", label=4) == [(("a",), ("DET",), 1)]
    with pytest.raises(UsageError, match="label 0: columns are counted from 1"):
        read("a X\n", label=0)


def test_numbers_of_words_are_not_taken_for_words(read):
    conll_x = "1\tYes\t_\n\n1\tthe\t_\n2\tcat\t_\n3\tsat\t_\n"
    ranges = "1-2\tdon't\n1\tdo\n2\tn't\n2.1\tx\n"
    for content, line in ((conll_x, 3), (ranges, 1), ("# global.columns = ID WORD\n" + ranges, 3)):
        with pytest.raises(
            CorpusError, match=rf"line {line}: the first column numbers the words \(1 2 .*--text-column 2 "
        ):
            read(content)
        assert read(content, text_column=1)[-1][0][-1] in ("3", "2.1", "2")
    assert read(conll_x, text_column=2) == [(("Yes",), None, 1), (("the", "cat", "sat"), None, 3)]


@pytest.mark.parametrize(
    "content",
    ["1 CD\n\nThe DT\n2 CD\n", "1 CD\n3 CD\n", "1\n2\n3\n", "a X\n\n1 CD\n2 CD\n",
     "# global.columns = FORM UPOS\n1\tNUM\n2\tNUM\n"],
)  # fmt: skip
def test_numbers_that_are_words_stay_words(read, content):
    assert read(content)


def test_named_columns_of_conllu_plus(read):
    content = (
        "# global.columns = ID FORM UPOS NER\n# text = Vámonos a la playa\n"
        "1-2\tVámonos\t_\t_\n1\tVamos\tVERB\tO\n2\tnos\tPRON\tO\n2.1\tx\tX\tO\n3\ta\tADP\tO\n"
    )
    assert read(content, "c.conllup", label="NER") == [(("Vamos", "nos", "a"), ("O", "O", "O"), 4)]
    assert read(content, label="UPOS", text_column="UPOS") == [
        (("VERB", "PRON", "ADP"), ("VERB", "PRON", "ADP"), 4)
    ]
    with pytest.raises(
        LabelError, match="no column 'POS', asked for as label: the file has ID, FORM, UPOS, NER"
    ):
        read(content, label="POS")
    with pytest.raises(CorpusError, match=r"expected 4 columns .*names: ID FORM UPOS NER"):
        read(content + "4\tx\n")


def test_column_files_are_not_tokenised(read):
    for name in ("c.conll", "c.conllu"):
        with pytest.raises(UsageError, match="one token per line"):
            read("a X\n", name, tokenize=True)


# --- CoNLL-U ---


def test_conllu_skips_ranges_and_empty_nodes(read):
    content = (
        "# sent_id = 1\n"
        + word("1-2", "don't", "_")
        + word(1, "do", "AUX")
        + word(2, "n't", "PART")
        + word("2.1", "go", "VERB")
        + "\n \t\n# c\n"
        + word(1, "#", "SYM")
    )
    assert read(content, "c.conllu", label="upos") == [
        (("do", "n't"), ("AUX", "PART"), 3),
        (("#",), ("SYM",), 9),
    ]


def test_conllu_labels_by_name_number_and_key(read):
    content = word(1, "dogs", "NOUN", "Case=Nom|Number=Plur", "SpaceAfter=No|NER=B-X") + word(
        2, "!", misc="NER=O"
    )
    for label, expected in {
        "upos": ("NOUN", "NOUN"),
        "UPOS": ("NOUN", "NOUN"),
        "4": ("NOUN", "NOUN"),
        "form": ("dogs", "!"),
        "lemma": ("_", "_"),
        "feats": ("Case=Nom|Number=Plur", "_"),
        "feats.Number": ("Plur", "_"),
        "misc.NER": ("B-X", "O"),
        "MISC.NER": ("B-X", "O"),
    }.items():
        assert read(content, "c.conllu", label=label)[0][1] == expected, label
    assert read(content, "c.conllu", text_column="id")[0][0] == ("1", "2")


def test_conllu_missing_labels(read):
    content = word(1, "a", "NOUN") + word(2, "b", "_", "Number=Sing", "SpaceAfter=No")
    with pytest.raises(
        LabelError, match=r"line 2: the word has no UPOS.* \(it has form=b, feats=Number=Sing, misc="
    ):
        read(content, "c.conllu", label="upos")
    with pytest.raises(
        LabelError, match=r"line 1: the word 'a' has no 'NER' in MISC.* \(it has _\): write NER=O"
    ):
        read(content, "c.conllu", label="misc.NER")
    with pytest.raises(LabelError, match="no word has the feature 'Numbr' in FEATS"):
        read(content, "c.conllu", label="feats.Numbr")
    with pytest.raises(LabelError, match="no XPOS"):
        read(content, "c.conllu", label="xpos")


@pytest.mark.parametrize("label", ["pos", "11", "misc.", "form.x", "last", "0", ""])
def test_conllu_labels_that_make_no_sense(read, label):
    with pytest.raises(UsageError):
        read(word(1, "a"), "c.conllu", label=label)


def test_conllu_damage(read):
    with pytest.raises(CorpusError, match=r"line 2: expected the 10 tab-separated columns .*found 2: "):
        read(word(1, "a") + "b\tX\n", "c.conllu")
    with pytest.raises(CorpusError, match=r"line 1: .*found 1 .*separated by spaces"):
        read(word(1, "a").replace("\t", " "), "c.conllu")
    with pytest.raises(
        CorpusError, match="line 3: expected word number 3, found '1': is a blank line missing"
    ):
        read(word(1, "a") + word(2, "b") + word(1, "c"), "c.conllu")
    with pytest.raises(CorpusError, match="line 2: expected word number 2, found '3'"):
        read(word(1, "a") + word(3, "b"), "c.conllu")
    with pytest.raises(CorpusError, match="line 1: the FORM column is empty"):
        read(word(1, ""), "c.conllu")


def test_places(tmp_path):
    path = tmp_path / "c.conllu"
    path.write_text("# one\n# two\n" + word(1, "a"), encoding="utf-8")
    assert list(open_corpus(str(path), label="upos")) == [Example(("a",), ("NOUN",), str(path), 3)]
