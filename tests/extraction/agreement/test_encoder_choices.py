"""What is found wrong with an encoder before corpora are read, and what needs none where nothing is new."""

from __future__ import annotations

import json
import logging
import shutil

import pytest

from featurestore import Example, FeatureDataset, Store, extract, load_encoder, open_corpus
from featurestore.cli.main import main
from featurestore.corpora.given import as_corpora
from featurestore.encoders.elmo.files.catalog import parse_source
from featurestore.encoders.loading import encoder_recipe
from featurestore.encoders.sources import LoadedEncoder
from featurestore.errors import EncoderError, MissingSentencesError, RecipeMismatchError, UsageError
from featurestore.extraction.choice import EncoderChoice
from featurestore.extraction.destination import Destination
from featurestore.extraction.job import Job
from featurestore.extraction.recheck import encode_again
from featurestore.integrations.stored import StoredVectors
from featurestore.keys import sentence_with
from featurestore.recipe import Recipe
from tests.kit.doubles import CONTEXT_RECIPE, DoubleEncoder, draw_sentences, vectors_of

FLAIR = Recipe({"kind": "flair", "version": 1, "embeddings": []})
SECRET = "flair:WordEmbeddings=run-this.bin"


class Unread:
    """A corpus that nobody may read yet."""

    path = "unread.txt"

    def __iter__(self):
        pytest.fail("the corpus was read first")


def filled(path, recipe: Recipe, *, encoder: str, sentences=()) -> Store:
    """Make a store of 8 dimensions, as a program other than ours may: without a speed."""
    store = Store.create(path, recipe=recipe, dim=8, encoder=encoder)
    if sentences:
        with store.write() as session:
            draft = session.draft(list(sentences))
            for position, tokens in enumerate(sentences):
                draft.put(position, vectors_of(tokens))
            session.commit(draft)
    return Store.open(path)


def job_of(path) -> Job:
    """A job whose corpus must not be read."""
    return Job([Unread()], Destination.of(path), device="cpu")


class TestRecipesThatDiffer:
    def test_of_a_model_in_files_before_the_corpora_are_read(self, tmp_path, tiny_elmo_spec, monkeypatch):
        filled(tmp_path / "store", encoder_recipe(tiny_elmo_spec), encoder=tiny_elmo_spec)
        monkeypatch.setattr(EncoderChoice, "load", lambda *_: pytest.fail("the encoder was loaded"))
        for layers, precision, named in (("top", None, "layers"), (None, "bfloat16", "precision")):
            choice = EncoderChoice.for_store(tmp_path / "store", None, layers, precision)
            with pytest.raises(RecipeMismatchError, match=rf"  {named}: .*\n.*leave --encoder"):
                job_of(tmp_path / "store").plan(choice)

    def test_of_another_kind_whatever_precision_the_device_will_choose(self, tmp_path, tiny_elmo_spec):
        filled(tmp_path / "store", FLAIR, encoder=SECRET)
        choice = EncoderChoice.for_store(tmp_path / "store", tiny_elmo_spec, None, None)
        assert choice.precision == "auto"
        with pytest.raises(RecipeMismatchError) as caught:
            job_of(tmp_path / "store").plan(choice)
        message = str(caught.value)
        assert 'kind: "flair" in' in message
        assert "precision" not in message
        assert message.endswith("Name the encoder that filled the store, or another --store.")

    def test_of_an_object_before_the_corpora_are_read(self, tmp_path):
        filled(tmp_path / "store", FLAIR, encoder="")
        with pytest.raises(RecipeMismatchError, match="kind"):
            job_of(tmp_path / "store").plan(LoadedEncoder.of(DoubleEncoder()))

    def test_in_the_separator_alone_are_told_how_to_fix_it(self, tmp_path):
        first, second = (
            Recipe({"kind": "flair", "version": 1, "embeddings": {"0": {"separator_sha256": digit * 64}}})
            for digit in "12"
        )
        extract([("a",)], DoubleEncoder(recipe=first), tmp_path / "store", progress=False)
        with pytest.raises(RecipeMismatchError, match=r"fix_separator\(embedding\)"):
            extract([("b",)], DoubleEncoder(recipe=second), tmp_path / "store", progress=False)

    def test_files_that_are_not_here_are_for_the_loader_to_tell(self, tmp_path, tiny_elmo_spec):
        filled(tmp_path / "store", encoder_recipe(tiny_elmo_spec), encoder=tiny_elmo_spec)
        gone = tiny_elmo_spec.replace("weights.hdf5", "nowhere.hdf5")
        choice = EncoderChoice.for_store(tmp_path / "store", gone, None, None)
        (tmp_path / "corpus.txt").write_text("a b\n")
        job = Job([open_corpus(tmp_path / "corpus.txt")], Destination.of(tmp_path / "store"))
        assert job.plan(choice).n_new == 1


class TestChoicesThatMakeNoSense:
    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"layers": "0"}, "layers '0': a Flair embedding has no layers"),
            ({"precision": "float16"}, "precision 'float16': Flair"),
            ({"initial_state": "warm"}, "initial state 'warm': only ELMo has one"),
            ({"precision": "float8"}, "unknown precision 'float8': expected auto"),
        ],
    )
    def test_of_flair_are_refused_first(self, tmp_path, options, text):
        choice = EncoderChoice(
            "flair:no-such-model", **{"layers": "average", "precision": "auto", **options}
        )  # which, if it were looked for, were another error
        with pytest.raises(UsageError) as caught:
            job_of(tmp_path / "store").plan(choice)
        assert text in str(caught.value)

    def test_for_an_encoder_that_is_loaded_already(self, tmp_path):
        for option in (
            {"layers": "all"},
            {"precision": "bfloat16"},
            {"initial_state": "zero"},
            {"device": "cuda"},
        ):
            with pytest.raises(UsageError, match="chosen when an encoder is loaded"):
                extract([("a",)], DoubleEncoder(), tmp_path / "store", progress=False, **option)
        assert not (tmp_path / "store").exists()
        extract([("a",)], DoubleEncoder(), tmp_path / "store", progress=False, device="cpu")  # where it is

    @pytest.mark.parametrize("layers", [{0}, 1.5, [0.5]])
    def test_layers_of_another_kind(self, tmp_path, tiny_elmo_spec, layers):
        with pytest.raises(UsageError, match="expected average, top, all, or indices such as 0,2"):
            extract([("a",)], tiny_elmo_spec, tmp_path / "store", layers=layers, progress=False)

    @pytest.mark.parametrize("given", [object(), 3, ["elmo:demo"]])
    def test_what_is_no_encoder_is_told_how_to_become_one(self, tmp_path, given):
        with pytest.raises(UsageError, match=r"is no encoder: .*FlairEncoder\(embedding\)"):
            extract([("a",)], given, tmp_path / "store", progress=False)
        assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("layers", "kept"), [([0, 2], [0, 2]), ((1,), [1]), (2, [2]), ("0,2", [0, 2])])
def test_layers_may_be_numbers(tmp_path, tiny_elmo_spec, layers, kept):
    extract([("a",)], tiny_elmo_spec, tmp_path / "store", layers=layers, progress=False)
    store = Store.open(tmp_path / "store")
    assert store.recipe["layers"] == kept
    # The store itself is as good as its path.
    assert extract([("a",)], tiny_elmo_spec, store, layers=layers, progress=False).n_cached == 1
    assert load_encoder(tiny_elmo_spec, layers=layers, device="cpu").recipe == store.recipe


def test_a_model_that_is_gone_is_said_to_be_named_by_the_store(tmp_path, tiny_elmo_spec):
    filled(tmp_path / "store", encoder_recipe(tiny_elmo_spec), encoder="elmo:/gone", sentences=[("a",)])
    with pytest.raises(EncoderError, match=r"names this encoder: if it lies elsewhere.*\(--encoder elmo:"):
        extract([("b",)], None, tmp_path / "store", progress=False)


def test_what_cannot_be_compared_is_said_and_has_no_speed_of_another(tmp_path, tiny_elmo_spec, caplog):
    extract([("a", "b")], tiny_elmo_spec, tmp_path / "store", progress=False)
    gone = tiny_elmo_spec.replace("weights.hdf5", "nowhere.hdf5")
    plan = Job(as_corpora([("a", "b"), ("c",)]), Destination.of(tmp_path / "store")).plan(
        EncoderChoice.for_store(tmp_path / "store", gone, None, None)
    )
    assert "cannot be told yet" in caplog.text
    assert "last commit" not in plan.seconds_basis


class TestNothingToEncode:
    @pytest.mark.parametrize("recipe", [FLAIR, Recipe({"kind": "elmo", "version": 1})])
    def test_needs_no_model_and_no_speed(self, tmp_path, capsys, recipe):
        sentences = draw_sentences(5)
        spec = SECRET if recipe is FLAIR else "elmo:/nowhere/options.json,/nowhere/weights.hdf5"
        filled(tmp_path / "store", recipe, encoder=spec, sentences=sentences)
        report = extract(sentences, None, tmp_path / "store", progress=False)
        assert (report.n_cached, report.n_encoded) == (5, 0)
        corpus = tmp_path / "corpus.txt"
        corpus.write_text("\n".join(map(" ".join, sentences)))
        for command, said in (("extract", "nothing to encode"), ("plan", "none")):
            with pytest.raises(SystemExit) as stop:
                main([command, str(corpus), "--store", str(tmp_path / "store")])
            assert stop.value.code == 0
            assert said in capsys.readouterr().out

    def test_but_what_is_new_is_not_encoded_on_a_stores_word(self, tmp_path):
        filled(tmp_path / "store", FLAIR, encoder=SECRET, sentences=draw_sentences(2))
        choice = EncoderChoice.for_store(tmp_path / "store", None, None, None)
        job = Job(as_corpora([("new",)]), Destination.of(tmp_path / "store"))
        plan = job.plan(choice)  # which loads nothing
        assert (plan.n_new, plan.seconds) == (1, None)
        with pytest.raises(UsageError, match="name the encoder yourself"):
            extract([("new",)], None, tmp_path / "store", progress=False)


@pytest.mark.parametrize("recipe", [FLAIR, CONTEXT_RECIPE])
def test_missing_sentences_are_never_answered_with_a_stores_own_text(tmp_path, recipe):
    store = filled(tmp_path / "store", recipe, encoder=SECRET, sentences=draw_sentences(2))
    messages = []
    for ask in (
        lambda: store.get(["not", "here"]),
        lambda: FeatureDataset(store, [Example(("not", "here"), ("X", "Y"))]),
    ):
        with pytest.raises(MissingSentencesError) as caught:
            ask()
        messages.append(str(caught.value))
    for message in messages:
        assert f"Add them: featurestore extract CORPUS --store {store.path}" in message
        assert ("--encoder flair:...\n(name the encoder that filled it" in message) == (recipe is FLAIR)
        assert "run-this" not in message


def test_the_estimate_says_that_it_knows_float32_only(tmp_path, tiny_elmo_spec):
    for precision, known in (("float32", True), ("auto", True), ("bfloat16", False)):
        choice = EncoderChoice(tiny_elmo_spec, "average", precision)
        basis = Job(as_corpora([("a", "b")]), Destination.of(tmp_path / "store")).plan(choice).seconds_basis
        assert ("in float32; bfloat16 may be several times slower" in basis) != known


class TestMissingSurroundings:
    def extracted(self, examples, path, recipe=CONTEXT_RECIPE):
        return extract(examples, DoubleEncoder(recipe=recipe), path, progress=False)

    def test_are_said_where_no_sentence_has_any(self, tmp_path, caplog):
        sentences = draw_sentences(5)
        with caplog.at_level(logging.WARNING):
            report = self.extracted(sentences, tmp_path / "store")
        assert report.missing_context == report.to_dict()["missing_surroundings"] == ["context"]
        assert report.missing_surroundings is report.missing_context  # its old name
        assert [record.getMessage() for record in caplog.records] == [report.notice]
        assert "(context)" in report.notice
        assert "from_flair(corpus, encoder_or_dependence=encoder)" in report.notice
        caplog.clear()
        assert self.extracted(sentences, tmp_path / "store").notice == ""  # nothing is new
        assert not caplog.records

    def test_are_not_where_one_has_or_none_matter(self, tmp_path, caplog):
        examples = [Example(("a",)), Example(sentence_with(("b",), b'{"left":["c"]}'))]
        assert self.extracted(examples, tmp_path / "some").notice == ""
        plain = Recipe({"kind": "double", "version": 1})
        assert self.extracted(draw_sentences(5), tmp_path / "plain", plain).notice == ""
        assert not caplog.records


class TestAModelThatMoved:
    """A store names its model by an absolute path, which may not hold for ever."""

    @pytest.fixture
    def moved(self, tmp_path, tiny_elmo):
        """A store of a model that lies elsewhere now: its path, and where the model is."""
        before, after = tmp_path / "models", tmp_path / "archive" / "models"
        files = parse_source(tiny_elmo.spec.removeprefix("elmo:"))
        before.mkdir()
        shutil.copy(files.options, before / "options.json")
        shutil.copy(files.weights, before / "weights.hdf5")
        extract([("a", "b")], f"elmo:{before}", tmp_path / "store", device="cpu", progress=False)
        after.parent.mkdir()
        before.rename(after)
        return tmp_path / "store", after

    def test_is_said_to_be_named_again_by_its_new_place(self, moved):
        store, _ = moved
        with pytest.raises(
            EncoderError, match=r"options\.json.*\n.*names this encoder.*\(--encoder elmo:\./FOLDER\)"
        ):
            extract([("new",)], None, store, progress=False)

    def test_is_taken_where_it_is_now_if_its_files_are_the_same(self, moved):
        store, folder = moved
        assert extract([("new",)], f"elmo:{folder}", store, device="cpu", progress=False).n_encoded == 1
        assert extract([("new",)], None, store, progress=False).n_cached == 1
        again = EncoderChoice.for_store(store, f"elmo:{folder}", None, None).load("cpu")
        assert encode_again(Store.open(store), again, 2).differing == []

    def test_is_named_by_its_new_place_from_then_on(self, moved, caplog):
        store, folder = moved
        old = Store.open(store).encoder
        extract([("new",)], f"elmo:{folder}", store, device="cpu", progress=False)
        named = Store.open(store).encoder
        assert named != old
        assert str(folder) in named
        assert f"the store named {old}, which is gone; it names {named} from now on" in caplog.text
        assert extract([("newer",)], None, store, device="cpu", progress=False).n_encoded == 1

    def test_that_is_still_there_keeps_its_name(self, moved, tmp_path):
        store, folder = moved
        copied = shutil.copytree(folder, tmp_path / "copied")
        folder.rename(tmp_path / "models")  # back to where it was
        old = Store.open(store).encoder
        assert extract([("new",)], f"elmo:{copied}", store, device="cpu", progress=False).n_encoded == 1
        assert Store.open(store).encoder == old

    def test_is_asked_for_as_fallback_where_vectors_are_computed(self, moved):
        store, folder = moved
        computing = StoredVectors.of(Store.open(store), "all", on_missing="compute")
        with pytest.raises(EncoderError, match=r"(?s)names this encoder.*fallback='elmo:\./FOLDER'"):
            computing.vectors([("new",)], device="cpu")
        computing = StoredVectors.of(
            Store.open(store), "all", on_missing="compute", fallback=f"elmo:{folder}"
        )
        assert len(computing.vectors([("new",)], device="cpu")) == 1

    def test_is_refused_if_they_are_not(self, moved):
        store, folder = moved
        options = json.loads((folder / "options.json").read_text())
        options["lstm"]["cell_clip"] = 2.5
        (folder / "options.json").write_text(json.dumps(options))
        with pytest.raises(RecipeMismatchError, match="options_sha256"):
            extract([("new",)], f"elmo:{folder}", store, device="cpu", progress=False)
