"""What a notebook shows of stores, recipes and batches: real text, never markup of theirs."""

from __future__ import annotations

from html.parser import HTMLParser

from featurestore.dataset.features import FeatureDataset
from featurestore.dataset.loader import feature_loader
from featurestore.recipe import Recipe
from featurestore.store.store import Store


class Texts(HTMLParser):
    """The tags and the text of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.frames: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "iframe":
            named = dict(attrs)
            assert named["sandbox"] == ""
            self.frames.append(named["srcdoc"] or "")

    def handle_data(self, data):
        self.texts.append(data)


def test_a_recipe_shows_its_fields_as_text():
    shown = Texts(Recipe({"kind": "<script>alert(1)</script>", "version": 1})._repr_html_())
    assert shown.tags == {"table", "caption", "tbody", "tr", "th", "td"}
    assert "<script>alert(1)</script>" in shown.texts
    assert {"kind", "version", "1"} <= set(shown.texts)


def test_a_store_and_its_batches(example_store, examples):
    store = Store.open(example_store)
    texts = Texts(store._repr_html_()).texts
    assert f"{len(store):,}" in texts
    assert store.fingerprint in texts
    dataset = FeatureDataset(store, examples)
    batch = next(iter(feature_loader(dataset, token_budget=200)))
    shown = dict(
        zip(Texts(batch._repr_html_()).texts[1::2], Texts(batch._repr_html_()).texts[2::2], strict=False)
    )
    assert shown["features"] == f"{' x '.join(map(str, batch.features.shape))} float32 on cpu"
    assert shown["lengths"] == f"{len(batch)} int64 on cpu"
    packed = Texts(batch.packed()._repr_html_()).texts
    assert any(text.startswith("packed, ") for text in packed)


def test_a_report_is_shown_in_a_frame_of_its_own(example_store):
    shown = Texts(Store.open(example_store).report(sample=5)._repr_html_())
    assert shown.tags == {"iframe"}
    assert shown.frames[0].startswith("<!DOCTYPE html>")
