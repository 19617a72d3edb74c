"""Tokens whose end an encoder does not see: counted in the plan, warned of, refused where they are most."""

from __future__ import annotations

import json

import numpy as np
import pytest

from featurestore import Store, extract, load_encoder
from featurestore.cli.main import main
from featurestore.corpora.given import as_corpora
from featurestore.encoders.loading import outline_encoder
from featurestore.encoders.sources import LoadedEncoder
from featurestore.errors import CorpusError
from featurestore.extraction.choice import EncoderChoice
from featurestore.extraction.destination import Destination
from featurestore.extraction.job import Job
from tests.kit.doubles import DoubleEncoder

CHINESE = [("今天下午市政府在新闻发布会上宣布" + end,) for end in ("新的地铁线路", "地铁不会开通")]
PROTEINS = [("MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVKALPDAQFEVV" + end,) for end in "AC"]
USUAL = [("It", "rains", "."), ("So", "we", "stay", "here")]
ADDRESS = [("See", "https://example.org/" + "a" * 40, "for", *("more",) * 200)]


def plan_of(sentences, store, source):
    return Job(as_corpora(sentences), Destination.of(store)).plan(source)


@pytest.mark.parametrize("sentences", [CHINESE, PROTEINS], ids=["Chinese", "proteins"])
def test_text_of_which_most_is_cut_is_refused(tmp_path, tiny_elmo, tiny_elmo_spec, sentences):
    one, other = tiny_elmo.encode(sentences)
    assert np.array_equal(one, other)  # the reason
    for encoder in (tiny_elmo, tiny_elmo_spec):
        with pytest.raises(CorpusError, match=r"100% of the text .* 48 bytes.*--allow-cut .*allow_cut=True"):
            extract(sentences, encoder, tmp_path / "store", progress=False)
    assert not (tmp_path / "store").exists()
    report = extract(sentences, tiny_elmo, tmp_path / "store", progress=False, allow_cut=True)
    assert report.n_encoded == 2
    # Where nothing is to be encoded, there is nothing to refuse; and then the store alone names the encoder.
    assert extract(sentences, None, tmp_path / "store", progress=False).n_cached == 2
    with pytest.raises(CorpusError, match="of the text"):
        extract([*sentences, ("x" * 49,)], None, tmp_path / "store", progress=False)


def test_the_corpus_that_is_cut_is_named(tmp_path, tiny_elmo_spec):
    (tmp_path / "usual.txt").write_text("\n".join(" ".join(tokens) for tokens in USUAL * 50))
    (tmp_path / "proteins.txt").write_text("\n".join(" ".join(tokens) for tokens in PROTEINS))
    corpora = [tmp_path / "usual.txt", tmp_path / "proteins.txt"]
    with pytest.raises(CorpusError) as caught:
        extract(corpora, tiny_elmo_spec, tmp_path / "store", progress=False)
    assert caught.value.path == str(tmp_path / "proteins.txt")


def test_a_long_token_here_and_there_is_counted_and_one_in_fifty_is_warned_of(tmp_path, tiny_elmo):
    source = LoadedEncoder.of(tiny_elmo)
    plan = plan_of(USUAL + ADDRESS * 3, tmp_path / "store", source)
    assert (plan.n_cut_tokens, plan.max_token_bytes, plan.is_mostly_cut) == (3, 48, False)
    assert 0.05 < plan.cut_share < 0.1
    [warning] = [warning for warning in plan.warnings if warning.kind == "cut-tokens"]
    assert (warning.count, warning.path) == (3, "(memory)")
    assert "https://example.org/" in warning.message
    few = plan_of(USUAL * 300 + ADDRESS, tmp_path / "store", source)
    assert (few.n_cut_tokens, few.warnings) == (1, ())
    none = plan_of(USUAL, tmp_path / "store", source)
    assert (none.n_cut_tokens, none.cut_share, none.most_cut) == (0, 0.0, "")


def test_what_an_encoder_reads_of_a_token_is_known_before_it_is_loaded(tiny_elmo_spec, tmp_path):
    assert outline_encoder("elmo:original").max_token_bytes == 48
    assert LoadedEncoder.of(load_encoder(tiny_elmo_spec, device="cpu")).outline().max_token_bytes == 48
    assert LoadedEncoder.of(DoubleEncoder()).outline().max_token_bytes is None
    assert plan_of(PROTEINS, tmp_path / "store", LoadedEncoder.of(DoubleEncoder())).n_cut_tokens == 0
    own = DoubleEncoder()
    own.max_token_bytes = 5
    assert plan_of([("abcdef", "abc")], tmp_path / "store", LoadedEncoder.of(own)).n_cut_tokens == 1


def test_the_commands_say_the_share_once(tmp_path, capsys, tiny_elmo_spec):
    (tmp_path / "proteins.txt").write_text("\n".join(" ".join(tokens) for tokens in PROTEINS))
    arguments = [str(tmp_path / "proteins.txt"), "--store", str(tmp_path / "store"), "--no-progress"]
    arguments += ["--encoder", tiny_elmo_spec, "--device", "cpu"]

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(list(words))
        return stop.value.code, *capsys.readouterr()

    for command in ("plan", "extract"):
        code, out, err = run(command, *arguments)
        assert code == 1
        assert "2 tokens of more than 48 bytes" in out
        assert err.startswith("error: ")
        assert err.count("100% of the text") == 1
        assert "--allow-cut" in err
    assert not (tmp_path / "store").exists()
    code, out, err = run("plan", *arguments, "--json")
    assert (code, json.loads(out)["cut_share"]) == (1, 1.0)
    code, out, err = run("extract", *arguments, "--allow-cut")
    assert code == 0
    assert err.startswith("warning: ")
    assert err.count("100% of the text") == 1
    assert len(Store.open(tmp_path / "store")) == 2
    assert EncoderChoice.for_store(tmp_path / "store", None, None, None).spec == tiny_elmo_spec
