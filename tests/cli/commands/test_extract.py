"""``extract`` and ``plan`` as a user runs them, with a real encoder: what is printed where, exit codes."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import pytest

from featurestore import Store
from featurestore.cli.display import progress as cli_progress
from featurestore.cli.main import main
from featurestore.encoders.elmo.encoder import ElmoEncoder
from featurestore.errors import EncoderOutOfMemory
from featurestore.extraction.choice import EncoderChoice
from featurestore.extraction.planning import plan as planning
from featurestore.extraction.progress import Progress
from featurestore.store.canaries import SENTENCES as CANARIES

PLAN_KEYS = {
    "corpora", "n_sentences", "n_tokens", "n_distinct", "n_conditioned", "n_cached", "n_new", "n_new_tokens",
    "longest", "longest_place", "n_bytes", "free_bytes", "seconds", "seconds_basis", "fits",
    "seconds_low", "seconds_high", "n_weighted_tokens", "readings", "n_cut_tokens", "max_token_bytes",
    "cut_share", "most_cut", "codec", "other_codecs",
}  # fmt: skip
REPORT_KEYS = {
    "n_sentences", "n_distinct", "n_cached", "n_encoded", "n_encoded_tokens", "n_shards", "n_bytes",
    "missing_surroundings", "refused", "seconds", "token_budget", "too_large", "tokens_per_second",
}  # fmt: skip
EXTRACT_KEYS = {
    "status", "store", "snapshot", "fingerprint", "encoder", "untrained", "plan", "report", "n_sentences",
    "n_tokens", "n_bytes",
}  # fmt: skip


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("The cat sat\nIt purred\nThe cat sat\n")
    return path


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def test_extract_prints_the_plan_and_what_was_done(capsys, corpus, store, tiny_elmo_spec):
    code, out, err = run(capsys, "extract", corpus, "--store", store, "--encoder", tiny_elmo_spec)
    assert code == 0
    for fragment in (
        f"{corpus}: 3 sentences, 8 tokens",
        "2 sentences (1 repeat)",
        "2 sentences, 5 tokens",
        f"3 tokens ({corpus}, line 1)",
        "encoded 2 sentences, 5 tokens in",
        f"{store} holds 2 sentences, 5 tokens",
    ):
        assert fragment in out
    assert "UNTRAINED" not in out
    assert err.splitlines() == ["encoding 5 tokens", "committed 2 sentences (5 tokens)"]


def test_no_progress_leaves_standard_error_empty(capsys, corpus, store, tiny_elmo_spec):
    arguments = ["extract", corpus, "--store", store, "--encoder", tiny_elmo_spec, "--no-progress"]
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    assert "encoded 2 sentences" in out


def test_json_is_one_object_and_nothing_else(capsys, corpus, store, tiny_elmo_spec):
    arguments = ["extract", corpus, "--store", store, "--encoder", tiny_elmo_spec, "--json"]
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert result.keys() == EXTRACT_KEYS
    assert result["plan"].keys() == PLAN_KEYS
    assert result["report"].keys() == REPORT_KEYS
    opened = Store.open(store)
    assert result["status"] == "complete"
    assert result["store"] == str(store)
    assert result["encoder"] == tiny_elmo_spec
    assert not result["untrained"]
    assert (result["snapshot"], result["fingerprint"]) == (opened.snapshot, opened.fingerprint)
    assert (result["n_sentences"], result["n_tokens"], result["n_bytes"]) == (2, 5, opened.n_bytes)
    assert (result["plan"]["n_new"], result["report"]["n_encoded"]) == (2, 2)

    code, out, err = run(capsys, "extract", corpus, "--store", store, "--json")
    again = json.loads(out)
    assert (code, err, again.keys(), again["report"].keys()) == (0, "", EXTRACT_KEYS, REPORT_KEYS)
    assert (again["plan"]["n_cached"], again["report"]["n_cached"], again["n_sentences"]) == (2, 2, 2)
    assert again["report"]["n_encoded"] == 0


def test_plan_as_json_is_one_object_and_makes_nothing(capsys, corpus, store, tiny_elmo_spec):
    arguments = ["plan", corpus, "--store", store, "--encoder", tiny_elmo_spec]
    code, out, err = run(capsys, *arguments, "--json")
    assert (code, err, json.loads(out).keys()) == (0, "", PLAN_KEYS)
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert "2 sentences, 5 tokens" in out
    assert not store.exists()


def test_what_was_read_is_shown_and_what_is_implausible_is_warned_of_once(
    capsys, tmp_path, store, tiny_elmo_spec
):
    (tmp_path / "tagged.conll").write_text("Anna\tB-PER\nsings\tO\n\nIt\tO\nrains\tO\n")
    (tmp_path / "words.txt").write_text("Anna B-PER\nsings O\nin O\nOslo B-LOC\n. O\nSo O\n")
    options = ["--store", store, "--encoder", tiny_elmo_spec, "--no-progress"]
    for command in ("plan", "extract", "extract"):  # the last time nothing is new
        code, out, err = run(capsys, command, tmp_path / "tagged.conll", *options, "--label", "last")
        assert (code, err) == (0, "")
        assert "Anna/B-PER sings/O\n" in out
        assert "2: O 75%, B-PER 25%\n" in out
        # By its name alone it would be refused.
        code, out, err = run(capsys, command, tmp_path / "words.txt", *options, "--format", "text")
        assert code == 0
        assert "Anna B-PER\n" in out
        assert err.startswith(f"warning: {tmp_path / 'words.txt'}: 6 of 6 lines have 2 fields")
        assert "--format conll" in err
        assert err.count("warning") == 1
    code, out, err = run(capsys, "extract", tmp_path / "words.txt", *options, "--format", "text", "--json")
    assert (code, err) == (0, "")
    [reading] = json.loads(out)["plan"]["readings"]
    assert reading["first_tokens"] == ["Anna", "B-PER"]
    [warning] = reading["warnings"]
    assert (warning["kind"], warning["count"]) == ("column-lines", 6)


def test_another_codec_than_the_stores_is_said(capsys, tmp_path, corpus, store, tiny_elmo_spec):
    options = ["--store", store, "--encoder", tiny_elmo_spec, "--no-progress"]
    assert run(capsys, "extract", corpus, *options)[0] == 0
    assert run(capsys, "extract", corpus, *options, "--codec", "int8")[2] == ""  # nothing is written
    (tmp_path / "more.txt").write_text("It slept\n")
    for command in ("plan", "extract"):
        code, _, err = run(capsys, command, tmp_path / "more.txt", *options, "--codec", "int8")
        assert code == 0
        assert err.startswith("note: the shards to be written are int8, those of the store float16")
    assert [shard.codec for shard in Store.open(store).manifest.shards] == ["float16", "int8"]
    (tmp_path / "last.txt").write_text("It woke up\n")
    for codec, others in (("float16", []), ("int8", ["float16"]), ("float32", ["float16", "int8"])):
        _, out, _ = run(capsys, "plan", tmp_path / "last.txt", *options, "--json", "--codec", codec)
        plan = json.loads(out)
        assert (plan["codec"], plan["other_codecs"]) == (codec, others)


def test_a_plan_that_does_not_fit_is_exit_1_in_both_commands(
    monkeypatch, capsys, corpus, store, tiny_elmo_spec
):
    monkeypatch.setattr(planning, "free_bytes", lambda path: 100)
    monkeypatch.setattr(EncoderChoice, "load", lambda *_: pytest.fail("the encoder was loaded"))
    arguments = [corpus, "--store", store, "--encoder", tiny_elmo_spec]
    code, out, _ = run(capsys, "plan", *arguments)
    assert code == 1
    assert "it does not fit" in out
    code, out, _ = run(capsys, "plan", *arguments, "--json")
    assert (code, json.loads(out)["fits"]) == (1, False)
    code, out, err = run(capsys, "extract", *arguments)
    assert code == 1
    assert "the vectors will not fit" in err
    assert "100 free" in err
    assert run(capsys, "extract", *arguments, "--json")[:2] == (1, "")
    assert not store.exists()


def test_only_corpus_and_store_append_with_the_stores_own_recipe(
    monkeypatch, capsys, tmp_path, corpus, store, tiny_elmo_spec
):
    options = ["--encoder", tiny_elmo_spec, "--layers", "all", "--codec", "int8", "--device", "cpu"]
    assert run(capsys, "extract", corpus, "--store", store, *options)[0] == 0
    recipe = Store.open(store).recipe
    (tmp_path / "more.tsv").write_text("text\tmood\nIt purred\tgood\nDogs bark loudly\tbad\n")
    code, out, _ = run(capsys, "extract", tmp_path / "more.tsv", "--store", store)
    assert code == 0
    assert "encoded 1 sentence, 3 tokens" in out
    opened = Store.open(store)
    assert (opened.recipe, len(opened), opened.manifest.codec) == (recipe, 3, "int8")
    assert opened.get(["Dogs", "bark", "loudly"]).shape == (3, 3, 32)
    monkeypatch.setattr(EncoderChoice, "load", lambda *_: pytest.fail("the encoder was loaded"))
    code, out, _ = run(capsys, "extract", tmp_path / "more.tsv", "--store", store)
    assert code == 0
    assert "nothing to encode: every sentence is in the store" in out


@pytest.mark.parametrize("option", [("--layers", "top"), ("--precision", "bfloat16")])
def test_another_recipe_is_exit_4_and_names_the_field(capsys, corpus, store, tiny_elmo_spec, option):
    assert run(capsys, "extract", corpus, "--store", store, "--encoder", tiny_elmo_spec)[0] == 0
    before = sorted(store.rglob("*"))
    code, _, err = run(capsys, "extract", corpus, "--store", store, *option)
    assert code == 4
    assert f"{option[0][2:]}: " in err
    assert "asked for" in err
    assert sorted(store.rglob("*")) == before


def test_shard_size_makes_shards_of_that_size(capsys, tmp_path, store, tiny_elmo_spec):
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"one two three number {n}\n" for n in range(40)))
    options = ["--encoder", tiny_elmo_spec, "--shard-size", "2KiB", "--codec", "float32", "--json"]
    code, out, _ = run(capsys, "extract", path, "--store", store, *options)
    assert code == 0
    # 2048 bytes are 16 tokens of 32 float32 values: three sentences of five tokens.
    assert json.loads(out)["report"]["n_shards"] == 14
    assert {shard.n_tokens for shard in Store.open(store).manifest.shards} == {15, 5}


def test_random_weights_are_called_so(capsys, corpus, store, tiny_elmo_spec):
    options = tiny_elmo_spec.removeprefix("elmo:").partition(",")[0]
    arguments = ["extract", corpus, "--store", store, "--encoder", f"elmo:untrained:{options}?seed=3"]
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert "(UNTRAINED: random weights)" in out
    code, out, _ = run(capsys, *arguments, "--json")
    assert json.loads(out)["untrained"] is True


def test_a_label_that_training_would_miss_is_found_before_encoding(capsys, tmp_path, store, tiny_elmo_spec):
    (tmp_path / "corpus.tsv").write_text("text\tmood\nIt purred\tgood\nDogs bark\t\n")
    arguments = [tmp_path / "corpus.tsv", "--store", store, "--encoder", tiny_elmo_spec]
    code, _, err = run(capsys, "extract", *arguments, "--label", "mood")
    assert code == 1
    assert "corpus.tsv, line 3" in err
    assert not store.exists()
    assert run(capsys, "extract", *arguments)[0] == 0


def test_raw_text_is_tokenised_on_request(capsys, tmp_path, store, tiny_elmo_spec):
    (tmp_path / "raw.txt").write_text("It purred, twice.\n")
    arguments = ["extract", tmp_path / "raw.txt", "--store", store, "--encoder", tiny_elmo_spec]
    assert run(capsys, *arguments, "--tokenize")[0] == 0
    assert ["It", "purred", ",", "twice", "."] in Store.open(store)


def test_standard_input_is_a_corpus(monkeypatch, capsys, store, tiny_elmo_spec):
    piped = io.TextIOWrapper(io.BytesIO(b"The cat sat\nIt purred\n"))
    monkeypatch.setattr(sys, "stdin", piped)
    code, out, _ = run(capsys, "extract", "-", "--store", store, "--encoder", tiny_elmo_spec)
    assert code == 0
    assert "-: 2 sentences, 5 tokens" in out
    assert len(Store.open(store)) == 2


def test_the_whole_command_in_a_process_of_its_own(tmp_path, store, tiny_elmo_spec):
    command = [
        sys.executable,
        "-m",
        "featurestore",
        "extract",
        "-",
        "--format",
        "conll",
        "--store",
        str(store),
    ]
    result = subprocess.run(
        [*command, "--encoder", tiny_elmo_spec, "--json"],
        input="The\tDET\ncat\tNOUN\n\nIt\tPRON\npurred\tVERB\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["n_sentences"] == 2
    assert Store.open(store).get(["The", "cat"]).shape == (2, 32)


def test_progress_lines_say_how_far_and_how_fast(monkeypatch, capsys, tmp_path, store, tiny_elmo_spec):
    monkeypatch.setattr(cli_progress, "_SECONDS_BETWEEN_LINES", 0.0)
    (tmp_path / "corpus.txt").write_text("".join(f"number {n}\n" for n in range(10)))
    arguments = ["extract", tmp_path / "corpus.txt", "--store", store, "--encoder", tiny_elmo_spec]
    code, _, err = run(capsys, *arguments, "--token-budget", "10")
    assert code == 0
    lines = err.splitlines()
    assert (lines[0], lines[-1]) == ("encoding 20 tokens", "committed 10 sentences (20 tokens)")
    assert re.fullmatch(r"encoded 10 of 20 tokens \(50%\), [\d,]+ tokens/s, .+ left", lines[1])
    assert lines[2].startswith("encoded 20 of 20 tokens (100%)")


def test_ctrl_c_as_json_is_one_object_that_says_so(monkeypatch, capsys, corpus, store, tiny_elmo_spec):
    submit, batches = ElmoEncoder.submit, []

    def interrupted(self, sentences):
        if sentences[0] in CANARIES:
            return submit(self, sentences)
        batches.append(sentences)
        if len(batches) == 2:
            raise KeyboardInterrupt
        return submit(self, sentences)

    monkeypatch.setattr(ElmoEncoder, "submit", interrupted)
    arguments = ["extract", corpus, "--store", store, "--encoder", tiny_elmo_spec, "--token-budget", "3"]
    code, out, err = run(capsys, *arguments, "--json")
    result = json.loads(out)
    assert (code, err, result["status"], result.keys()) == (130, "", "interrupted", EXTRACT_KEYS)
    assert (result["n_sentences"], result["report"]["n_encoded"], result["plan"]["n_new"]) == (1, 1, 2)
    monkeypatch.undo()
    code, out, _ = run(capsys, *arguments, "--json")
    assert (code, json.loads(out)["status"], len(Store.open(store))) == (0, "complete", 2)


def test_ctrl_c_while_planning_is_130_and_makes_nothing(monkeypatch, capsys, corpus, store, tiny_elmo_spec):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "planned", interrupted)
    code, _, err = run(capsys, "extract", corpus, "--store", store, "--encoder", tiny_elmo_spec)
    assert (code, err.strip()) == (130, "interrupted")
    assert not store.exists()


def test_a_sentence_too_large_for_memory_is_exit_1_and_names_it(
    monkeypatch, capsys, corpus, store, tiny_elmo_spec
):
    submit = ElmoEncoder.submit

    def small(self, sentences):
        if sum(map(len, sentences)) > 2:
            raise EncoderOutOfMemory("the device is full")
        return submit(self, sentences)

    monkeypatch.setattr(ElmoEncoder, "submit", small)
    code, _, err = run(capsys, "extract", corpus, "--store", store, "--encoder", tiny_elmo_spec)
    assert code == 1
    assert "out of memory with 5 tokens in a batch; going on with 2" in err
    assert f"1 sentence does not fit into memory even alone:\n  {corpus}, line 1: The cat sat" in err
    assert ["It", "purred"] in Store.open(store)


def test_a_file_without_sentence_boundaries_is_warned_of_and_done(capsys, tmp_path, store, tiny_elmo_spec):
    words = [
        "the",
        "cat",
        "sat",
        "on",
        "a",
        "mat",
        "in",
        "the",
        "old",
        "house",
        "by",
        "the",
        "sea",
        "and",
        "sang",
    ]
    path = tmp_path / "no-boundaries.bio"
    path.write_text("".join(f"{words[i % len(words)]} O\n" for i in range(6000)))
    code, out, err = run(capsys, "extract", path, "--store", store, "--encoder", tiny_elmo_spec)
    assert code == 0
    warnings = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert sum("6,000 tokens" in line for line in warnings) == 1
    assert "1 sentence, 6,000 tokens" in out
    assert len(Store.open(store)) == 1


def test_words_without_the_label_are_ignored_in_training_where_that_is_said(
    capsys, tmp_path, store, tiny_elmo_spec
):
    row = "{}\t{}\t_\tNOUN\t{}\t_\t0\troot\t_\t_\n"
    text = "".join(
        row.format(1, f"w{i}", "NN" if i % 2 else "_") + row.format(2, "of", "IN") + "\n" for i in range(12)
    )
    path = tmp_path / "partly.conllu"
    path.write_text(text)
    assert run(capsys, "extract", path, "--store", store, "--encoder", tiny_elmo_spec)[0] == 0
    arguments = ["train", "tagger", "--store", store, "--train", path, "--dev", path, "--label", "xpos"]
    arguments += ["--out", tmp_path / "model.h5", "--epochs", 2]
    code, _, err = run(capsys, *arguments)
    assert code == 1
    assert "--missing-label ignore" in err
    code, out, err = run(capsys, *arguments, "--missing-label", "ignore", "--json")
    assert code == 0, err
    assert (tmp_path / "model.h5").exists()
    assert "_" not in json.loads(out).get("labels", [])
