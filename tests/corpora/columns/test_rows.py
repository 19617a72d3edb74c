"""What a line of a column file is: a word, a comment, a header, a range, the end of a document."""

import pytest

from featurestore.errors import CorpusError, LabelError, UsageError


def tokens(found):
    return [sentence for sentence, _, _ in found]


# --- comments and words that begin with # ---


@pytest.mark.parametrize("separator", ["\t", " "])
def test_words_that_begin_with_a_hash(read, separator):
    content = "#NFL|O\n#|O\nnow|O\n\n#|O\n1|O\n\n#Oslo|B-LOC\n\nOslo|B-LOC\n".replace("|", separator)
    assert tokens(read(content)) == [("#NFL", "#", "now"), ("#", "1"), ("#Oslo",), ("Oslo",)]
    assert read(content, label=2)[2] == (("#Oslo",), ("B-LOC",), 8)


def test_a_rare_label_seen_only_before_is_known(read):
    content = "x SYM\n\n" + "a B\n\n" * 1500 + "### SYM\n\n" + "a B\n\n" * 1500
    assert tokens(read(content))[1501] == ("###",)


@pytest.mark.parametrize(
    "comment",
    ["# newdoc", "# newpar", "# sent_id = 1", "#begin document (a); part 000", "#Text=Anna sings", "# a",
     "###MEDLINE:95369245", "# segment_iiif_link = http://x/y", "# language = de", "#", "# sent_id 12"],
)  # fmt: skip
def test_comments_in_a_file_of_tabs(read, comment):
    assert read(f"{comment}\nAnna\tB-PER\n\n{comment}\nOslo\tB-LOC\n", label=2) == [
        (("Anna",), ("B-PER",), 2),
        (("Oslo",), ("B-LOC",), 5),
    ]


@pytest.mark.parametrize("comment", ["# sent_id = 1", "# doc1", "# 17", "#begin document x", "# a b c"])
def test_comments_in_a_file_of_spaces(read, comment):
    assert tokens(read(f"{comment}\nAnna B-PER\n\n{comment}\nOslo B-LOC\n")) == [("Anna",), ("Oslo",)]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("Anna B-PER\n\n#Oslo B-LOC\n", 3),
        ("Anna B-PER\n\n# B-LOC\n", 3),
        ("Anna\tB-PER\tx\n\n#\thttp://example.org\t[2010]\n", 3),
    ],
)
def test_what_may_be_a_comment_or_a_word_is_refused(read, content, line):
    with pytest.raises(CorpusError, match=f"line {line}: cannot tell.*--comments.*--no-comments"):
        read(content)
    assert len(read(content, comments=True)) == 1
    assert len(read(content, comments=False)) == 2


def test_comments_between_the_words_of_a_document(read):
    content = "Anna\tB-PER\n# segment = x\nLee\tI-PER\n#\tO\n"
    assert read(content, label=2) == [(("Anna", "Lee", "#"), ("B-PER", "I-PER", "O"), 1)]


def test_conll_2012(read):
    content = (
        "#begin document (nw/01); part 000\n"
        "nw/01  0  0  Anna   NNP  (S*   -   (PERSON)  (ARG0*)  (1)\n"
        "nw/01  0  1  sings  VBZ  *)    -   *         (V*)     -\n\n"
        "nw/01  0  0  Yes    UH   (S*)  -   *         -\n\n"
        "#end document\n#begin document (nw/02); part 000\n"
        "nw/02  0  0  #  SYM  (S*)  -  *  (V*) (A*) -\n#end document\n"
    )
    expected = [(("Anna", "sings"), ("NNP", "VBZ"), 2), (("Yes",), ("UH",), 5), (("#",), ("SYM",), 9)]
    assert read(content, text_column=4, label=5) == expected


# --- columns ---


def test_rows_may_have_more_or_fewer_columns_where_tabs_separate_them(read):
    content = "Anna\tB-PER\tseen\nsings\tO\n\nOslo\tB-LOC\tx\ty\n"
    assert read(content, label=2) == [
        (("Anna", "sings"), ("B-PER", "O"), 1),
        (("Oslo",), ("B-LOC",), 4),
    ]
    with pytest.raises(LabelError, match=r"line 2: the row has 2 columns, the one on line 1 3, .*its number"):
        read(content, label="last")
    with pytest.raises(
        LabelError, match=r"line 2: column 3, .*is empty \(the line is \['sings', 'O', ''\]\)"
    ):
        read(content, label=3)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("Anna B-PER\nNew York B-LOC\n", 2),
        ("New York B-LOC\nAnna B-PER\n\na b\n", 1),
        ("Anna B-PER\n\nNew York B-LOC\nNew Delhi B-LOC\n", 3),
        ("a b c d e\n\nf g h i j k\n", 3),
    ],
)
def test_a_token_in_two_pieces_is_no_column(read, content, line):
    with pytest.raises(
        CorpusError, match=r"expected \d columns \(as on line \d\), found \d.*by tabs"
    ) as caught:
        read(content)
    assert caught.value.line in (line, 2)


def test_sentences_with_a_column_per_predicate(read):
    content = "a X - - *\nb Y - - *\n\nc X v * * *\nd Y - * * *\n\ne X - - -\n"
    assert tokens(read(content)) == [("a", "b"), ("c", "d"), ("e",)]


@pytest.mark.parametrize("blank", [" ", "  ", "\f", "\r", "\v"])
def test_blanks_at_the_edges_of_fields(read, blank):
    content = f"EU{blank}\tB-ORG\n{blank}rejects\t{blank}O{blank}\n"
    assert read(content, label=2) == [(("EU", "rejects"), ("B-ORG", "O"), 1)]
    rows = [("EU" + blank, "NOUN"), (blank + "is", "AUX" + blank)]
    conllu = "".join(f"{n}\t{f}\t_\t{u}\t_\t_\t_\t_\t_\t_\n" for n, (f, u) in enumerate(rows, 1))
    assert read(conllu, "c.conllu", label="upos") == [(("EU", "is"), ("NOUN", "AUX"), 1)]


def test_other_blanks_belong_to_the_token(read):
    assert tokens(read("10\u00a0000\tO\n\u00a0\tO\na\u3000\tO\n")) == [("10\u00a0000", "\u00a0", "a\u3000")]


@pytest.mark.parametrize("token", ["", " ", "  ", "\f"])
def test_a_row_without_a_token(read, token):
    for name in ("c.conll", "c.conllu"):
        rest = "O" if name == "c.conll" else "_\tX\t_\t_\t_\t_\t_\t_"
        first, second = ("", "") if name == "c.conll" else ("1\t", "2\t")
        with pytest.raises(CorpusError, match=r"line 2: the \w+ column is empty"):
            read(f"{first}a\t{rest}\n{second}{token}\t{rest}\n", name)


def test_a_tab_in_a_file_of_spaces_is_no_token(read):
    with pytest.raises(
        CorpusError, match=r"line 2: .*separated by spaces .*found a tab in the token 'b\\tX'"
    ):
        read("a\nb\tX\n")


def test_windows_files_joined_with_byte_order_marks(read, caplog):
    content = b"\xef\xbb\xbfAnna B-PER\r\n\r\n\xef\xbb\xbfOslo B-LOC\r\n"
    assert tokens(read(content)) == [("Anna",), ("Oslo",)]
    assert "a byte order mark at the beginning of a later line is left out" in caplog.text


@pytest.mark.parametrize("line", ["\u200b", "\ufeff", " \u200b "])
def test_a_line_that_shows_nothing_ends_a_sentence(read, line):
    assert tokens(read(f"Anna B-PER\n{line}\nOslo B-LOC\n{line}\n\nsings O\n")) == [
        ("Anna",),
        ("Oslo",),
        ("sings",),
    ]
    assert tokens(read("a\n\u200b\n")) == [("a", "\u200b")]


def test_sentences_end_at_the_flag_of_hipe(read):
    content = (
        "TOKEN\tNE-COARSE-LIT\tMISC\n# language = de\nAnna\tB-pers\t_\nsingt\tO\tNoSpaceAfter|EndOfSentence\n"
        "# segment = 2\nOslo\tB-loc\t_\n.\tO\tEndOfLine\n\n# language = de\nJa\tO\tEndOfSentence\n"
    )
    assert read(content, label="NE-COARSE-LIT") == [
        (("Anna", "singt"), ("B-pers", "O"), 3),
        (("Oslo", "."), ("B-loc", "O"), 6),
        (("Ja",), ("O",), 10),
    ]


# --- headers ---


@pytest.mark.parametrize(
    "header", ["word pos chunk ner", "TOKEN POS CHUNK NER", "Form UPOS XPOS Entity", "tokens tags misc label"]
)
@pytest.mark.parametrize("separator", ["\t", " "])
def test_header_rows(read, header, separator):
    content = (
        f"{header}\n-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nis VBZ O O\n\n{header}\nOslo NNP B-NP B-LOC\n"
    )
    content = content.replace(" ", separator)
    for label in (4, header.split()[3], header.split()[3].swapcase()):
        assert read(content, label=label) == [
            (("EU", "is"), ("B-ORG", "O"), 4),
            (("Oslo",), ("B-LOC",), 8),
        ]
    assert tokens(read(content, header=False))[0] == (header.split()[0],)


@pytest.mark.parametrize("first", ["Text NN O", "Words NNS O", "word NN O", "Tag NN O"])
def test_a_first_word_that_could_name_a_column(read, first):
    content = f"{first}\nis VBZ O\n\nWord NN O\nnames NNS O\n"
    assert tokens(read(content))[0] == (first.split()[0], "is")


@pytest.mark.parametrize("content", ["token X\na Y\n", "word\na\nb\n", "a ner\nb O\n"])
def test_what_may_be_a_header_or_a_word_is_refused(read, content):
    with pytest.raises(CorpusError, match=r"line 1: cannot tell whether .*--header.*--no-header"):
        read(content)
    assert tokens(read(content, header=True))[0][0] != content.split()[0]
    assert tokens(read(content, header=False))[0][0] == content.split()[0]


def test_names_of_any_header(read):
    content = "sid\tslovo\ttag\n7\tAno\tX\n7\tne\tY\n"
    assert read(content, text_column="slovo", label="tag") == [(("Ano", "ne"), ("X", "Y"), 2)]
    with pytest.raises(LabelError, match="no column 'ner', asked for as label"):
        read(content, text_column=2, label="ner")
    with pytest.raises(LabelError, match=r"no column 'ner', .*the file has sid, slovo, tag"):
        read(content, text_column=2, label="ner", header=True)


@pytest.mark.parametrize("spelling", ["global.columns", "GLOBAL.COLUMNS", "Global.Columns"])
def test_named_columns_in_any_case(read, spelling):
    content = f"# {spelling} = id form ner\n1-2\tzum\t_\n1\tzu\tO\n2\tdem\tO\n2.1\tx\tO\n"
    assert read(content, label="NER") == [(("zu", "dem"), ("O", "O"), 3)]
    with pytest.raises(
        CorpusError, match=r"line 2: column 1 numbers the words, but does not count them \(1 3\)"
    ):
        read(f"# {spelling} = id form ner\n1\ta\tO\n3\tb\tO\n")


def test_with_named_columns_every_row_is_a_word(read):
    names, rows = "# global.columns = FORM LABEL\n", "-DOCSTART-\tX\n# a = b\tY\n\n#\thttp://x\n\n"
    content = f"{names}{rows}# c = d\n#begin document\tO\n"
    assert tokens(read(content, "c.conllup")) == [("-DOCSTART-", "# a = b"), ("#",), ("#begin document",)]


# --- options ---


@pytest.mark.parametrize(
    ("name", "option"),
    [("c.txt", {"comments": True}), ("c.conllu", {"header": True}), ("c.conllu", {"comments": False}),
     ("c.tsv", {"comments": True}), ("c.jsonl", {"header": False}), ("c.tsv", {"missing_label": "ignore"})],
)  # fmt: skip
def test_options_that_make_no_sense_for_the_format(read, name, option):
    with pytest.raises(UsageError, match="makes no sense for the format"):
        read("a\n", name, **option)


def test_an_unknown_way_with_missing_labels(read):
    with pytest.raises(UsageError, match="missing_label is 'skip': expected error or ignore"):
        read("a\n", missing_label="skip")


def test_missing_labels_of_a_column_file(read):
    content = "a\tX\nb\t\nc\t_\nd\n\ne\t\n"
    with pytest.raises(CorpusError, match="line 4: expected 2 columns"):
        read(content, label=2)
    found = read(content.replace("d\n", "d\t \n"), label=2, missing_label="ignore")
    assert [[str(label) for label in labels] for _, labels, _ in found] == [
        ["X", "MissingLabel.IGNORED", "MissingLabel.IGNORED", "MissingLabel.IGNORED"],
        ["MissingLabel.IGNORED"],
    ]
    with pytest.raises(LabelError, match="no word has a label in column 2"):
        read("a\t_\n", label=2, missing_label="ignore")


def test_words_before_a_broken_line_are_read_though_it_was_inspected(tmp_path):
    from featurestore.corpora.corpus import open_corpus

    path = tmp_path / "c.conll"
    path.write_bytes(b"# doc1\na X\n\nb Y\n\n\xff Z\n")
    read = iter(open_corpus(path))
    assert [next(read).tokens, next(read).tokens] == [("a",), ("b",)]
    with pytest.raises(CorpusError, match=r"line 6: .*not UTF-8"):
        next(read)


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("mot\tétiquette\nAnna\tB-PER\nchante\tO\n.\tO\n", {}),
        ("слово\tтег\nАнна\tB-PER\nпоёт\tO\n.\tO\n", {"label": 2}),
        ("mot\tx\tcatégorie\na\tx\tDET\nb\ty\tNOUN\nc\tx\tNOUN\n", {"label": "last"}),
        ("ord ordklass\nen DET\nkatt NOUN\nsov VERB\n. PUNCT\nen DET\n", {"label": 2}),
    ],
)
def test_headers_in_any_language_are_asked_about(read, content, options):
    with pytest.raises(CorpusError, match=r"line 1: cannot tell whether .* names the columns.*--no-header"):
        read(content, **options)
    assert [line for _, _, line in read(content, **options, header=True)] == [2]
    assert [line for _, _, line in read(content, **options, header=False)] == [1]


@pytest.mark.parametrize(
    "content",
    [
        "Anna person\nsings O\nhere O\n",  # one label has no like
        "the det\ncat noun\nsat verb\nthe det\n",
        "Anna B-per\nsings O\nOslo B-loc\nsleeps O\n",
    ],
)
def test_first_rows_that_are_words(read, content):
    assert [line for _, _, line in read(content, label=2)] == [1]


@pytest.mark.parametrize(
    ("content", "column"),
    [
        ("s1_1\tAnna\tB-PER\ns1_2\tsings\tO\n", 2),
        ("d1.t0\tAnna\nd1.t1\tsings\n", 2),
        ("doc 0 Anna NNP\ndoc 1 sings VBZ\n", 3),
        ("0\t1\tAnna\tB-PER\n0\t2\tsings\tO\n\n1\t1\tOslo\tB-LOC\n", 3),
    ],
)
def test_names_of_rows_are_not_taken_for_words(read, content, column):
    with pytest.raises(CorpusError, match=r"line 1: the first column numbers the words.*--text-column"):
        read(content)
    assert read(content, text_column=column)[0][0] == ("Anna", "sings")


@pytest.mark.parametrize("content", ["w0\tX\tO\nw1\tX\tO\n", "1990 CD\n1991 CD\n", "ha\tX\nha\tY\n"])
def test_words_with_numbers_stay_words(read, content):
    assert read(content)[0][0] == tuple(line.split()[0] for line in content.splitlines())


def test_a_column_file_quoted_as_a_table_is_refused(read):
    with pytest.raises(CorpusError, match=r"line 1: all fields stand between quote marks.*QUOTE_NONE"):
        read('"TOKEN"\t"NER"\n"Anna"\t"B-PER"\n"sings"\t"O"\n')
    assert read('"Anna"\tO\n"\tO\n')[0][0] == ('"Anna"', '"')


def test_an_empty_node_out_of_its_place_is_refused(read):
    with pytest.raises(
        CorpusError, match=r"column 1 numbers the words, but does not count them \(1 8\.1 2\)"
    ):
        read("1\tEs\tO\n8.1\tx\tO\n2\tda\tO\n", text_column=2)
    # Decimals are no word numbers.
    assert read("0.5\tEs\tO\n3\tist\tO\n", text_column=2)[0][0] == ("Es", "ist")
