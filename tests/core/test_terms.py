"""Bags of terms: TF-IDF and its directions agree with scikit-learn's, and so does what a linear model makes of them."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tl_text.plain import plain

from tl_core.evaluation import terms
from tl_core.evaluation.terms import fit_terms
from tl_core.heads import linear_heads
from tl_core.training import fit_probe
from tl_core.types import Targets

WORDS = [f"w{i}" for i in range(60)]


def bags(n: int = 80, seed: int = 0) -> list[dict[str, float]]:
    rng = np.random.default_rng(seed)
    return [{word: float(rng.integers(1, 4)) for word in rng.choice(WORDS, 8, replace=False)} for _ in range(n)]


def dense(some: list[dict[str, float]]) -> np.ndarray:
    """log(1 + count) times scikit-learn's smooth inverse document frequency, rows of length 1."""
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.feature_extraction.text import TfidfTransformer

    counts = DictVectorizer().fit_transform([{k: np.log1p(v) for k, v in bag.items()} for bag in some])
    return np.asarray(TfidfTransformer().fit_transform(counts).toarray())


def test_all_directions_keep_the_angles_of_scikit_learns_tfidf() -> None:
    some = bags()
    features, expected = fit_terms(some).of(some), dense(some)
    assert features.shape == (80, 60)
    np.testing.assert_allclose(features @ features.T, expected @ expected.T, atol=1e-5)


def test_the_first_directions_hold_what_a_singular_value_decomposition_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terms, "DIRECTIONS", 10)
    monkeypatch.setattr(terms, "OVERSAMPLED", 20)
    some = bags()
    features = fit_terms(some).of(some)
    exact = np.linalg.svd(dense(some), compute_uv=False)[:10]
    assert features.shape == (80, 10)
    found = np.linalg.norm(features, axis=0)
    assert np.all(np.diff(found) <= 1e-5)
    np.testing.assert_allclose(found, exact, rtol=0.02)


def test_only_the_commonest_terms_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terms, "MOST_TERMS", 2)
    found = fit_terms([{"a": 1, "b": 1}, {"a": 1, "c": 1}, {"b": 1, "d": 1}])
    assert list(found.places) == ["a", "b"]


def test_unknown_terms_give_zeros_and_the_rest_is_as_without_them() -> None:
    found = fit_terms(bags())
    known = bags(1, seed=9)[0]
    rows = found.of([{"never": 3}, {}, known, known | {"never": 5}])
    assert not rows[:2].any()
    assert np.array_equal(rows[2], rows[3])


def test_other_rows_decide_nothing_and_the_same_bags_give_the_same_bytes() -> None:
    train, test = bags(), bags(20, seed=1)
    first, again = fit_terms(train), fit_terms(train)
    assert first.of(test).tobytes() == again.of(test).tobytes()
    np.testing.assert_allclose(first.of(test)[:3], first.of(test[:3]), atol=1e-6)


def test_without_terms_it_refuses() -> None:
    with pytest.raises(ValueError, match="no training sample has a term"):
        fit_terms([{}, {}])


@pytest.mark.shared
@pytest.mark.parametrize(("name", "within"), [("trec6", 0.05), ("sst2_mini", 0.04)])
def test_a_probe_on_them_is_as_good_as_scikit_learns_on_tfidf(shared_data: Path, name: str, within: float) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts: dict[str, list[str]] = {}
    labels: dict[str, np.ndarray] = {}
    for split in ("train", "test"):
        with (shared_data / "datasets" / name / f"{split}.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))[:1500]
        texts[split], labels[split] = [row["text"] for row in rows], np.array([row["label"] for row in rows])
    classes, truth = np.unique(labels["train"], return_inverse=True)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    x = vectorizer.fit_transform(texts["train"])
    known = vectorizer.transform(texts["test"])
    best = max(LogisticRegression(C=c).fit(x, labels["train"]).score(known, labels["test"]) for c in (1, 10))

    found = fit_terms([plain(text) for text in texts["train"]])
    features = {split: torch.from_numpy(found.of([plain(text) for text in texts[split]])) for split in texts}
    targets = Targets("multiclass", tuple(classes.tolist()))
    spec = next(spec for spec in linear_heads("text") if spec.task == "multiclass")
    held_out = np.arange(len(truth)) % 7 == 0
    y = torch.from_numpy(truth)
    fit = fit_probe(
        features["train"][~held_out], y[~held_out], features["train"][held_out], y[held_out],
        spec.build(features["train"].shape[1], targets), spec, targets, (1000, 300, 100, 30, 10, 3, 1), True,
    )  # fmt: skip
    with torch.inference_mode():
        said = classes[fit.head(features["test"]).argmax(dim=1).numpy()]
    assert (said == labels["test"]).mean() > best - within


def test_terms_of_a_text() -> None:
    found = plain("Lost card. LOST?")
    assert {term: n for term, n in found.items() if not term.startswith("#")} == {
        "lost": 2, "card": 1, ".": 1, "?": 1, "lost card": 1, "card .": 1, ". lost": 1, "lost ?": 1,
    }  # fmt: skip
    assert (found["#<los"], found["#ard>"]) == (0.5, 0.25)
    assert all(re.fullmatch(r"#.{3,5}", term) for term in found if term.startswith("#"))
