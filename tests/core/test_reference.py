"""What a bundle keeps of its training rows: small, the same bytes again, and right about who is unusual."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from tl_core.errors import FormatError, UserError
from tl_core.held import Held, group_codes
from tl_core.reference import MOST_ROWS, Reference, sampled, unit
from tl_core.types import Task


def drawn(rows: int, seed: int, dim: int = 8) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(1.0, 1.0, (rows, dim)).astype(np.float32)


def test_a_score_is_the_mean_distance_to_five_neighbours_in_units_of_the_threshold() -> None:
    train, val, new = drawn(50, 0), drawn(30, 1), drawn(7, 2)
    reference = Reference.of(train, val)

    def distance(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows.astype(np.float64), train))
        nearest: npt.NDArray[np.float64] = np.sort(np.linalg.norm(a[:, None] - b[None], axis=2), axis=1)[:, :5]
        return np.asarray(nearest.mean(axis=1))

    assert reference.threshold == pytest.approx(np.sort(distance(val))[29], abs=1e-3)  # ceil(31 x 0.95) = 30th of 30
    np.testing.assert_allclose(reference.scores(new), distance(new) / reference.threshold, atol=2e-3)
    np.testing.assert_array_equal(reference.scores(new), reference.scores(10 * new))  # lengths don't matter


@pytest.mark.parametrize("val", [19, 40, 300])
def test_rows_like_the_validation_rows_pass_as_often_as_promised(val: int) -> None:
    passed = []
    for seed in range(60):
        x = drawn(100 + val + 200, seed)
        reference = Reference.of(x[:100], x[100 : 100 + val])
        passed.append((reference.scores(x[100 + val :]) <= 1).mean())
    assert 0.945 <= np.mean(passed) <= 0.965


def test_fewer_rows_than_the_threshold_needs_give_the_largest_distance() -> None:
    reference = Reference.of(drawn(3, 0), drawn(4, 1))  # and fewer training rows than neighbours
    assert reference.threshold == pytest.approx(float(reference.distances[-1]))
    assert reference.scores(drawn(4, 1)).max() == pytest.approx(1.0)


def test_it_is_saved_small_and_read_back(tmp_path: Path) -> None:
    reference = Reference.of(drawn(100, 0, 384), drawn(50, 1, 384), kept=0.9)
    reference.save(tmp_path / "a")
    for _ in range(10):
        reference.save(tmp_path / "b")
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").stat().st_size < 100 * 384 * 2 + 50 * 4 + 500
    again = Reference.load(tmp_path / "a")
    assert again.facts() == reference.facts()
    assert again.kept == 0.9
    np.testing.assert_array_equal(again.scores(drawn(9, 3, 384)), reference.scores(drawn(9, 3, 384)))


def test_what_can_not_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "reference.safetensors"
    with pytest.raises(UserError, match=r"unreadable .*; train again or fetch it again"):
        Reference.load(path)
    for damaged in (b"", b"garbage", b"\x08\0\0\0\0\0\0\0{}      "):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="unreadable"):
            Reference.load(path)
    save_file({"rows": np.ones((1, 1))}, path, {"reference": '{"format": 1, "kept": 0.95}'})
    with pytest.raises(UserError, match="unreadable"):
        Reference.load(path)
    save_file({"rows": np.ones((1, 1))}, path, {"reference": '{"format": 3, "kept": 0.95}'})
    with pytest.raises(FormatError, match="has format 3, this tl reads up to 2; update tl"):
        Reference.load(path)
    parts = {"rows": np.ones((1, 1)), "distances": np.ones(1), "held.rows": np.ones((2, 1)), "held.said": np.ones(1)}
    save_file(parts, path, {"reference": '{"format": 2, "kept": 0.95}'})
    with pytest.raises(UserError, match="held-out rows are not whole"):
        Reference.load(path)


def test_one_of_an_older_tl_has_no_held_out_rows(tmp_path: Path) -> None:
    path = tmp_path / "reference.safetensors"
    made = Reference.of(drawn(9, 0), drawn(8, 1))
    parts = {"rows": made.rows, "distances": made.distances}
    save_file(parts, path, {"reference": '{"format": 1, "kept": 0.95}'})
    again = Reference.load(path)
    assert again.held is None
    assert again.facts() == made.facts()


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_held_out_rows_are_read_back(task: Task, tmp_path: Path) -> None:
    x, path = drawn(20, 0), tmp_path / "reference"
    said = np.random.default_rng(0).random(20 if task == "regression" else (20, 3)).astype(np.float32)
    truth = said if task == "regression" else said.argmax(axis=1) if task == "multiclass" else said > 0.5
    groups = [f"speaker {row // 5}" for row in range(20)]
    made = dataclasses.replace(
        Reference.of(x, x), held=Held.of(unit(x), said, truth, task, groups), groups=group_codes(groups),
        group_column="who",
    )  # fmt: skip
    made.save(path)
    again = Reference.load(path)
    assert made.held is not None
    assert again.held is not None
    assert again.group_column == "who"
    assert again.facts()["held_out_rows"] == 20
    for one, other in ((made.held, again.held), (made, again)):
        for field in ("rows", "said", "sure", "right", "groups"):
            np.testing.assert_array_equal(getattr(one, field, None), getattr(other, field, None))
    assert (again.held.sure is None) == (task == "regression")
    assert (again.held.right is None) == (task != "multiclass")
    assert len(np.unique(again.held.groups)) == 4
    np.testing.assert_array_equal(again.held.groups[:1], group_codes(["speaker 0"]))  # the same in any data set


def test_nonsense_makes_no_reference() -> None:
    x = drawn(5, 0)
    for train, val, kept in ((x[:0], x, 0.9), (x, x[:0], 0.9), (x, x, 1.0), (x, np.full_like(x, np.nan), 0.9)):
        with pytest.raises(ValueError, match="reference"):
            Reference.of(train, val, kept)
    with pytest.raises(ValueError, match="width 3, the reference has 8"):
        Reference.of(x, x).scores(drawn(2, 0, 3))


def test_copies_and_empty_rows_are_no_trouble() -> None:
    x = np.ones((10, 4), np.float32)
    reference = Reference.of(x, x)
    assert reference.scores(x).max() <= 1  # all alike: rounding is no distance
    assert np.isfinite(reference.scores(np.zeros((1, 4), np.float32))).all()
    assert reference.scores(-x).min() > 100


def test_a_sample_keeps_the_order_and_goes_by_the_seed() -> None:
    few, many = np.arange(10), np.arange(5000) * 3
    np.testing.assert_array_equal(sampled(few, 0), few)
    chosen = sampled(many, 0)
    assert len(chosen) == len(set(chosen.tolist())) == MOST_ROWS
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, sampled(many, 0))
    assert (chosen != sampled(many, 1)).any()
