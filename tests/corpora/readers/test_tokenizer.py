"""The rule tokeniser, through its two functions and through text files."""

import re
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.corpora.corpus import open_corpus
from featurestore.corpora.tokenizing import unspaced
from featurestore.corpora.tokenizing.characters import character_tokens
from featurestore.corpora.tokenizing.rules import split_sentences, tokenize
from featurestore.errors import CorpusError, UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, world!", "Hello | , | world | !"),
        ("I don't think it's Ann's.", "I | do | n't | think | it | 's | Ann | 's | ."),
        ("We'll say they’ve won’t", "We | 'll | say | they | ’ve | wo | n’t"),
        ("I shouldn't've, CANNOT", "I | should | n't | 've | , | CAN | NOT"),
        ("rock'n'roll O'Brien dogs' n't", "rock'n'roll | O'Brien | dogs | ' | n't"),
        ("well-known 20-year-old", "well-known | 20-year-old"),
        ("$1,000.50 and 5.2% at 10:30am", "$ | 1,000.50 | and | 5.2 | % | at | 10:30am"),
        ("on 3/4/2021, 60cm, 5th.", "on | 3/4/2021 | , | 60cm | , | 5th | ."),
        ("the U.S. vs. Mr. J. R. Smith", "the | U.S. | vs. | Mr. | J. | R. | Smith"),
        ("e.g. tea etc.", "e.g. | tea | etc."),
        ("(see https://x.org/a_(b)?q=1.)", "( | see | https://x.org/a_(b)?q=1 | . | )"),
        ("www.x.com, me.you@x-y.org; @bob #fun", "www.x.com | , | me.you@x-y.org | ; | @bob | #fun"),
        ("wait... what?! -- no!!", "wait | ... | what | ?! | -- | no | !!"),
        ("nice :) sad ;-( (a):b", "nice | :) | sad | ;-( | ( | a | ) | : | b"),
        ("cafe\u0301 हिन्दी Straße «naïve»", "cafe\u0301 | हिन्दी | Straße | « | naïve | »"),
        ("👍🏽👨\u200d👩\u200d👧🇩🇪🇫🇷1\ufe0f\u20e3", "👍🏽 | 👨\u200d👩\u200d👧 | 🇩🇪 | 🇫🇷 | 1\ufe0f\u20e3"),
        ("a\u00a0b\u2003c", "a | b | c"),
        ("C# x/y", "C | # | x | / | y"),
        ("", ""),
        (" \t ", ""),
    ],
)
def test_tokens(text, expected):
    assert tokenize(text) == tuple(expected.split(" | ") if expected else ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One .", "Two !", "Three ?"]),
        ('He said "stop." She left.', ['He said " stop . "', "She left ."]),
        ("(It rained.) Then sun.", ["( It rained . )", "Then sun ."]),
        ("Mr. Smith of the U.S. Senate spoke. Fine.", ["Mr. Smith of the U.S. Senate spoke .", "Fine ."]),
        ("Well... maybe. So do I. Then", ["Well ... maybe .", "So do I .", "Then"]),
        ("It cost 3.50. 20 came.", ["It cost 3.50 .", "20 came ."]),
        ("no.Space here", ["no . Space here"]),
        ("", []),
    ],
)
def test_sentences(text, expected):
    assert [" ".join(sentence) for sentence in split_sentences(text)] == expected


def test_a_line_of_a_text_file_may_hold_several_sentences(tmp_path):
    path = tmp_path / "raw.txt"
    path.write_text("One. Two.\n\nIt's three.\n", encoding="utf-8")
    found = [(" ".join(example.tokens), example.line) for example in open_corpus(path, tokenize=True)]
    assert found == [("One .", 1), ("Two .", 1), ("It 's three .", 3)]


def test_an_initial_is_one_by_what_follows_not_by_how_it_was_met_before():
    for _ in range(2):
        assert tokenize("by J. Smith") == ("by", "J.", "Smith")
        assert tokenize("vitamin J. was") == ("vitamin", "J", ".", "was")
        assert tokenize("A. J. K. and J.") == ("A.", "J.", "K", ".", "and", "J", ".")
        assert tokenize("vitamin J.\nSmith") == ("vitamin", "J.", "Smith")


def test_many_other_words_change_no_tokens():
    text = "Mr. J. Smith can't see https://x.org/a, " + "x" * 100 + "'s."
    before = tokenize(text)
    for i in range(100):
        tokenize(" ".join(f"w{i}x{j}." for j in range(1000)))
    assert tokenize(text) == before == (
        "Mr.", "J.", "Smith", "ca", "n't", "see", "https://x.org/a", ",", "x" * 100, "'s", "."
    )  # fmt: skip


@given(st.text())
def test_nothing_is_lost_or_changed(text):
    kept = re.sub(r"\s", "", text)
    assert "".join(tokenize(text)) == kept
    assert "".join(token for sentence in split_sentences(text) for token in sentence) == kept
    assert "" not in tokenize(text)
    assert () not in split_sentences(text)


@pytest.mark.parametrize(
    "piece", ["a.a+", "a@", "'s", "www.)", "A. ", "http://a.", "a-", "n't", ":", "\u0301", "#"]
)
def test_no_text_takes_more_than_linear_time(piece):
    start = time.perf_counter()
    tokenize(piece * 50_000)
    assert time.perf_counter() - start < 10


# --- Scripts without spaces between words, and characters ---


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("今天下午市政府宣布", "今天下午市政府宣布"),
        ("我们去公园。今天天气很好", "我们去公园。今天天气很好"),
        ("今日は天気がいいです", "今日は天気がいいです"),
        ("コンピューター を使う", "コンピューター"),
        ("ฉันรักภาษาไทย", "ฉันรักภาษาไทย"),
        ("ខ្ញុំស្រលាញ់ភាសា", "ខ្ញុំស្រលាញ់ភាសា"),
        ("ຂ້ອຍຮັກພາສາລາວ", "ຂ້ອຍຮັກພາສາລາວ"),
        ("မြန်မာနိုင်ငံ", "မြန်မာနိုင်ငံ"),
        ("ᨲ᩠ᩅᩫᨾᩮᩬᩥᨦᨩ᩠ᨿᨦ", "ᨲ᩠ᩅᩫᨾᩮᩬᩥᨦᨩ᩠ᨿᨦ"),
    ],
)
def test_text_without_spaces_is_refused_with_what_parts_it(tmp_path, text, found):
    for name, content, line in (
        ("a.txt", f"a b\n{text}\n", 2),
        ("a.csv", f"text\nab\n{text}\n", 3),
        ("a.jsonl", f'{{"text": "{text}"}}', 1),
    ):
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(
            CorpusError, match=f"line {line}: '{found}' writes no spaces .*icu.*characters"
        ) as caught:
            list(open_corpus(tmp_path / name, tokenize=True))
        assert caught.value.line == line


@pytest.mark.parametrize(
    "text",
    [
        "The People's Republic (中华人民共和国) was founded in 1949.",
        "今天 下午 市政府 在 新闻 发布会",
        "오늘 날씨가 좋습니다",
        "བོད་སྐད་ཡིན།",
        "Việt Nam và 北京",
        "हिन्दी में लिखा",
        "北京大学",
    ],
)
def test_text_that_has_spaces_is_split_by_rules(tmp_path, text):
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    assert [example.tokens for example in open_corpus(tmp_path / "a.txt", tokenize=True)] == [tokenize(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("今天下午市政府在新闻发布会上宣布", ["今天 下午 市政府 在 新闻 发布 会 上 宣布"]),
        ("天气很好。我们去公园！好？", ["天气 很好 。", "我们 去 公园 ！", "好 ？"]),
        ("他说“你好。”然后走了。", ["他 说 “ 你好 。 ” 然后 走了 。"]),
        ("東京に住んでいる。", ["東京 に 住 んで いる 。"]),
        ("ฉันรักภาษาไทย", ["ฉัน รัก ภาษา ไทย"]),
        ("ខ្ញុំ\u200bស្រលាញ់", ["ខ្ញុំ ស្រលាញ់"]),
        ("ຂ້ອຍຮັກພາສາລາວ", ["ຂ້ອຍ ຮັກ ພາສາ ລາວ"]),
        ("မြန်မာနိုင်ငံ၏မြို့တော်", ["မြန်မာနိုင်ငံ ၏ မြို့တော်"]),
        ("iPhone手机100元, I don't", ["iPhone 手机 100 元 , I do n't"]),
        ("😀今天\U00020000下午", ["😀 今天 \U00020000 下午"]),
        ("It's here. Yes.", ["It 's here .", "Yes ."]),
    ],
)
def test_icu_parts_scripts_without_spaces(tmp_path, text, expected):
    pytest.importorskip("icu4py")
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    found = [" ".join(example.tokens) for example in open_corpus(tmp_path / "a.txt", tokenize="icu")]
    assert found == expected


def test_icu_loses_nothing_and_says_what_it_has_no_words_for(tmp_path):
    pytest.importorskip("icu4py")
    text = "今天下午 iPhone手机、100元。ภาษาไทย"
    assert "".join(unspaced.icu_tokens(text)) == text.replace(" ", "")
    (tmp_path / "a.txt").write_text("ᨲ᩠ᩅᩫᨾᩮᩬᩥᨦᨩ᩠ᨿᨦ", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"line 1: ICU has no dictionary .*characters"):
        list(open_corpus(tmp_path / "a.txt", tokenize="icu"))


def test_icu_is_an_extra(tmp_path):
    (tmp_path / "a.txt").write_text("今天下午市政府", encoding="utf-8")
    code = (
        "import sys; sys.modules['icu4py'] = None\n"
        "from featurestore import open_corpus\nfrom featurestore.errors import UsageError\n"
        f"corpus = open_corpus({str(tmp_path / 'a.txt')!r}, tokenize='icu')\n"
        "try: list(corpus)\n"
        "except UsageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "icu4py" in done.stdout
    assert "pip install 'featurestore[icu]'" in done.stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MKT AYI\tAK", "M K T A Y I A K"),
        ("今天 下午", "今 天 下 午"),
        ("cafe\u0301 e\u0301\u0323", "c a f e\u0301 e\u0301\u0323"),
        ("हिन्दी", "हि न् दी"),
        ("ไทยกำ", "ไ ท ย กำ"),
        ("👍🏽👨\u200d👩\u200d👧🇩🇪🇫🇷1\ufe0f\u20e3", "👍🏽 👨\u200d👩\u200d👧 🇩🇪 🇫🇷 1\ufe0f\u20e3"),
        ("각\u1100\u1161\u11a8가", "각 \u1100\u1161\u11a8 가"),
        ("a\u200bb\u3000c", "a b c"),
    ],
)
def test_characters(tmp_path, text, expected):
    (tmp_path / "a.txt").write_text(f"{text}\n\n{text}\n", encoding="utf-8")
    corpus = open_corpus(tmp_path / "a.txt", tokenize="characters")
    assert [(" ".join(example.tokens), example.line) for example in corpus] == [(expected, 1), (expected, 3)]


@given(st.text())
def test_characters_lose_nothing_but_whitespace(text):
    assert "".join(character_tokens(text)) == re.sub(r"[\s\u200b]", "", text)


def test_an_unknown_tokeniser(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(
        UsageError, match="tokenize is 'words': expected True or False, or rules, icu, characters"
    ):
        open_corpus(tmp_path / "a.txt", tokenize="words")
