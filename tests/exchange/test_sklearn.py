"""scikit-learn pipelines over a store: fitted, searched, cloned and pickled by scikit-learn itself."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from featurestore.errors import MissingSentencesError
from tests.kit.stores import create, fill, sentences

pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'featurestore[sklearn]'")

from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from featurestore.exchange.sklearn import SentenceVectors

WORDS = sentences(40)
LABELS = ["long" if len(tokens) > 2 else "short" for tokens in WORDS]


@pytest.fixture(scope="module", params=[1, 2])
def store(request, tmp_path_factory):
    return fill(create(tmp_path_factory.mktemp("stores") / "store", n_layers=request.param), WORDS)


def test_a_pipeline_is_searched(store):
    search = GridSearchCV(
        make_pipeline(SentenceVectors(store), LogisticRegression(max_iter=500)),
        {"sentencevectors__how": ["mean", "sum", "first"], "logisticregression__C": [0.1, 10]},
        cv=3,
    )
    search.fit(WORDS, LABELS)
    assert not np.isnan(search.cv_results_["mean_test_score"]).any()
    assert len(set(search.cv_results_["mean_test_score"])) > 1
    best = search.best_estimator_
    again = pickle.loads(pickle.dumps(best))
    assert again.predict(WORDS).tolist() == best.predict(WORDS).tolist()
    assert best.predict([" ".join(tokens) for tokens in WORDS]).tolist() == best.predict(WORDS).tolist()


def test_it_is_an_estimator(store):
    first = SentenceVectors(store, how="max")
    assert first.get_params() == {"store": store, "how": "max", "mask": None}
    copy = clone(make_pipeline(first))[0]
    assert copy is not first
    assert copy.store is store
    copy.set_params(how="sum")
    assert (first.how, copy.how) == ("max", "sum")
    by_path = SentenceVectors(store.path, how="sum")
    assert np.array_equal(clone(by_path).fit(WORDS).transform(WORDS), copy.transform(WORDS))
    assert copy.transform(WORDS).shape == (40, store.n_layers * 8)
    assert len(copy.get_feature_names_out()) == store.n_layers * 8
    with pytest.raises(MissingSentencesError):
        first.transform(["not there"])
