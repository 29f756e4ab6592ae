"""Several scores as one."""

from __future__ import annotations

import math

import pytest

from tl_core.selection.scores import consensus


def test_mean_of_the_standardised_scores() -> None:
    scores = {
        "a": {"logme": 1.0, "h_score": 10.0, "knn": 0.0},
        "b": {"logme": 3.0, "h_score": 20.0, "knn": 1.0},
        "c": {"logme": 2.0, "h_score": 60.0, "knn": 0.5},
    }
    # LogME: mean 2, spread sqrt(2/3); H-score: mean 30, spread sqrt(1400/3)
    s, t = math.sqrt(2 / 3), math.sqrt(1400 / 3)
    expected = {"a": (-1 / s - 20 / t) / 2, "b": (1 / s - 10 / t) / 2, "c": (0 + 30 / t) / 2}
    assert consensus(scores) == pytest.approx(expected)


def test_a_score_that_is_the_same_for_all_counts_as_nothing() -> None:
    scores = {"a": {"logme": 0.1 + 0.2, "h_score": 1.0}, "b": {"logme": 0.3, "h_score": 3.0}}
    assert consensus(scores) == pytest.approx({"a": -0.5, "b": 0.5})


def test_one_candidate_is_average() -> None:
    assert consensus({"a": {"logme": 7.0, "h_score": 2.0}}) == {"a": 0.0}
    assert consensus({}) == {}


def test_missing_scores() -> None:
    scores = {"a": {"logme": 1.0}, "b": {"logme": 3.0, "h_score": 5.0}, "c": {"knn": 0.9}, "d": {"logme": math.nan}}
    assert consensus(scores) == pytest.approx({"a": -1.0, "b": 0.5})


def test_neither_unit_nor_origin_of_a_score_counts() -> None:
    scores = {n: {"logme": v, "h_score": h} for n, v, h in [("a", 0.2, 3.0), ("b", 0.9, 8.0), ("c", 0.4, 9.0)]}
    moved = {n: {"logme": 1000 * s["logme"] - 5, "h_score": s["h_score"] / 7} for n, s in scores.items()}
    assert consensus(moved) == pytest.approx(consensus(scores))
