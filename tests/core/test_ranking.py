"""The rows of ranking.json and the words for the choice."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from tl_core.selection.ranking import Candidate, why_chosen
from tl_core.selection.standing import Prefer, Standing, contenders
from tl_core.types import BackboneSpec


def standing(name: str, rank: int = 1, gap: float = 0.0, tied: bool = True) -> Standing:
    return Standing(name, 200, 0.9 - gap, 0.85, 0.95, 0.5, 0.01, rank, 1, 3, gap, -0.01, gap + 0.02, tied, 0.3, 1)


def spec(**facts: Any) -> BackboneSpec:
    def build(*_: Any) -> Any:
        raise AssertionError("nothing is built for a row")

    return BackboneSpec("a", "image", "hub", "owner/a", build, **facts)


FACTS = {"licence": "CC-BY-NC-4.0", "parameters": 7, "feature_dim": 3, "fingerprint": "f" * 64, "revision": "c" * 40}


def test_a_measured_row_is_json_without_times() -> None:
    scores = {"logme": {"value": 1.0, "low": 0.5, "high": 1.5}, "consensus": {"value": 0.2, "low": None, "high": None},
              "gbc": {"value": float("nan"), "low": 0.0, "high": 1.0}}  # fmt: skip
    row = Candidate.measured(spec(), FACTS, standing("a"), eliminated=None, flops=12.4, scores=scores)
    record = dataclasses.asdict(row)
    assert json.loads(json.dumps(record, allow_nan=False))["scores"].keys() == {"logme", "consensus"}
    assert (row.status, row.flops, row.params, row.licence_kind, row.revision) == (
        "ranked", 12, 7, "non-commercial", "c" * 40,
    )  # fmt: skip
    assert not [key for key in record if "second" in key or "time" in key]
    left = Candidate.measured(spec(), FACTS, standing("a"), eliminated="behind", flops=None, scores={})
    assert (left.status, left.reason, left.flops) == ("eliminated", "behind", None)


def test_a_dropped_row_says_what_the_catalogue_knows() -> None:
    row = Candidate.dropped(spec(params=5, flops=9, licence="MIT"), "no weights")
    assert (row.status, row.reason, row.params, row.flops, row.rank, row.probe) == (
        "dropped", "no weights", 5, 9, None, None,
    )  # fmt: skip


def test_a_view_names_what_it_was_cut_from() -> None:
    cut = dataclasses.replace(spec(), name="a#layer3", view="layer3", base=spec())
    row = Candidate.measured(cut, FACTS, standing("a#layer3"), eliminated=None, flops=1, scores={})
    assert (row.base, row.cut) == ("a", "layer3")


@pytest.mark.parametrize(
    ("prefer", "others", "entered", "why"),
    [
        ("cost", [], 1, "the only candidate"),
        ("cost", [], 5, "the only one left"),
        ("cost", [standing("b", 2, 0.1, tied=False)], 2, "first in the ranking"),
        ("cost", [standing("b", 2, 0.02)], 2, "first in the ranking"),  # tied, but too far behind to be taken
        ("cost", [standing("b", 2, 0.005), standing("c", 3, 0.01)], 5, "the cheapest of 3 that tie"),
        ("size", [standing("b", 2, 0.005)], 5, "the smallest of 2 that tie"),
        ("accuracy", [standing("b", 2, 0.005)], 5, "first of 2 that tie"),
    ],
)
def test_why_it_was_chosen(prefer: Prefer, others: list[Standing], entered: int, why: str) -> None:
    found = [standing("a"), *others]
    ties = len(contenders(found, tolerance=0.01))
    assert why_chosen(contenders=ties, measured=len(found), entered=entered, prefer=prefer) == why
