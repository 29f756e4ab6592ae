"""A calibrated model is left alone, a distorted one is found, and the numbers are what they are said to be."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from tl_core.diagnostics.calibration import calibration, corrected_error
from tl_core.types import Targets

CLASSES = Targets("multiclass", ("a", "b", "c", "d"))
LABELS = Targets("multilabel", ("a", "b", "c"))
Floats = npt.NDArray[np.float64]


def softmax(z: Floats) -> Floats:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def drawn(
    rng: np.random.Generator, rows: int, temperature: float = 1.0, classes: int = 4, scale: float = 2.0
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Probabilities and labels that were drawn from them before they were distorted."""
    z = rng.normal(size=(rows, classes)) * scale
    y = (softmax(z).cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)
    return softmax(z / temperature), y


def blamed(text: str) -> bool:
    return text.startswith(("The model is too", "The model is not"))


@pytest.mark.parametrize(("rows", "scale"), [(25, 2.0), (150, 6.0), (600, 2.0), (600, 0.5)])
def test_a_calibrated_model_is_rarely_blamed(rows: int, scale: float) -> None:
    rng = np.random.default_rng(0)
    told = []
    for seed in range(120):
        p, y = drawn(rng, rows, scale=scale)
        found = calibration(p, y, CLASSES, temperature=None, resamples=100, seed=seed)
        assert found is not None
        told.append(found.text)
    assert sum(map(blamed, told)) <= 18  # 10% of 120 and two standard deviations of such a count


@pytest.mark.parametrize(("temperature", "way"), [(0.5, "too sure by"), (2.0, "not sure enough by")])
def test_a_distorted_model_is_found(temperature: float, way: str) -> None:
    rng = np.random.default_rng(1)
    far, far_y = drawn(rng, 200_000, temperature)
    truly = float(far.max(axis=1).mean() - (far.argmax(axis=1) == far_y).mean())
    covered, errors = 0, []
    for seed in range(20):
        p, y = drawn(rng, 1000, temperature)
        found = calibration(p, y, CLASSES, temperature=None, resamples=100, seed=seed)
        assert found is not None
        assert found.state == "warn"
        assert way in found.text
        assert "tune.calibrate=true" in found.text
        covered += found.offset.low <= truly <= found.offset.high
        errors.append(found.error.value)
    assert covered >= 15
    assert np.mean(errors) == pytest.approx(abs(truly), abs=0.01)  # all bins err the same way here


def test_rows_of_a_group_count_as_one() -> None:
    rng = np.random.default_rng(2)
    groups = [f"speaker {i // 30}" for i in range(600)]
    single = grouped = 0
    for seed in range(60):
        p, y = drawn(rng, 600)
        sure = p.max(axis=1)
        right = np.repeat(rng.random(20), 30) < sure  # a group is right or wrong together
        y = np.where(right, p.argmax(axis=1), p.argmin(axis=1))
        alone = calibration(p, y, CLASSES, temperature=None, resamples=100, seed=seed)
        whole = calibration(p, y, CLASSES, temperature=None, resamples=100, seed=seed, groups=groups)
        assert alone is not None
        assert whole is not None
        single, grouped = single + blamed(alone.text), grouped + blamed(whole.text)
    assert grouped <= 11
    assert single > 30


def test_labels_of_a_row_hang_together() -> None:
    rng = np.random.default_rng(3)
    told = []
    for seed in range(80):
        p = 1 / (1 + np.exp(-2 * rng.normal(size=(200, 1)) * np.ones((1, 3))))
        y = rng.random((200, 1)) < p  # three times the same answer
        found = calibration(p, y, LABELS, temperature=1.0, resamples=100, seed=seed)
        assert found is not None
        told.append(found.text)
    assert sum(map(blamed, told)) <= 14
    z = rng.normal(size=(1000, 3)) * 2
    y = rng.random((1000, 3)) < 1 / (1 + np.exp(-z))
    found = calibration(1 / (1 + np.exp(-2 * z)), y, LABELS, temperature=0.5, resamples=100)
    assert found is not None
    assert found.state == "warn"
    assert "of its decisions are right" in found.text
    assert "Its logits are divided by 0.5, which suited the validation rows better" in found.text
    assert found.rows == 1000
    assert sum(b.rows for b in found.bins) == 3000


def test_rare_errors_are_no_proof() -> None:
    """Not one error in 60 rows fits a model that is 98% sure of each."""
    p = np.tile([0.98, 0.02], (60, 1))
    found = calibration(p, np.zeros(60, np.int64), Targets("multiclass", ("a", "b")), temperature=None)
    assert found is not None
    assert not blamed(found.text)
    assert found.offset.method == "wilson"
    assert found.offset.low < 0 < found.offset.high
    labels = calibration(p, np.tile([True, False], (60, 1)), Targets("multilabel", ("a", "b")), temperature=None)
    assert labels is not None
    assert not blamed(labels.text)


def test_errors_that_cancel_are_found() -> None:
    """As sure as it is right on average, and never where it says so."""
    rng = np.random.default_rng(4)
    sure = np.repeat([0.6, 0.9], 1000)
    right = rng.random(2000) < np.repeat([0.75, 0.75], 1000)
    y = np.where(right, 0, 1)
    found = calibration(np.stack([sure, 1 - sure], axis=1), y, Targets("multiclass", ("a", "b")), temperature=None)
    assert found is not None
    assert found.state == "warn"
    assert "too sure of some rows and not sure enough of others, by 1" in found.text
    assert found.error.value == pytest.approx(0.15, abs=0.02)
    assert [b.rows for b in found.bins] == [1000, 1000]  # ties stay together
    assert [(b.low, b.high) for b in found.bins] == [(0.6, 0.6), (0.9, 0.9)]


def test_what_is_surely_off_by_little_is_left_alone() -> None:
    rng = np.random.default_rng(5)
    sure = np.full(40_000, 0.9)
    y = np.where(rng.random(40_000) < 0.888, 0, 1)
    found = calibration(
        np.stack([sure, 1 - sure], axis=1), y, Targets("multiclass", ("a", "b")), temperature=None, resamples=100
    )
    assert found is not None
    assert found.state == "ok"
    assert "too sure by 1." in found.text
    assert "which is little" in found.text


def test_few_rows_leave_it_open() -> None:
    p, y = drawn(np.random.default_rng(0), 20)
    found = calibration(p, y, CLASSES, temperature=None, resamples=100)
    assert found is not None
    assert found.state == "unclear"
    assert found.text.startswith("Can't tell from 20 rows whether the model is as sure as it is right: it is ")


def test_scores_and_bins_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(6)
    p, y = drawn(rng, 400)
    found = calibration(p.astype(np.float32), y, CLASSES, temperature=1.5, resamples=100)
    assert found is not None
    hot = np.eye(4)[y]
    assert found.log_loss.value == pytest.approx(-np.log(p[np.arange(400), y]).mean(), abs=1e-5)
    assert found.brier.value == pytest.approx(((p - hot) ** 2).sum(axis=1).mean(), abs=1e-5)
    assert found.log_loss.low < found.log_loss.value < found.log_loss.high
    assert found.temperature == 1.5
    assert [b.rows for b in found.bins] == pytest.approx([400 / 15] * 15, abs=1.0)
    assert all(a.high <= b.low and a.accuracy.low <= a.accuracy.high for a, b in zip(found.bins, found.bins[1:]))
    means = sum(b.rows * b.confidence for b in found.bins) / 400, sum(b.rows * b.accuracy.value for b in found.bins)
    assert found.offset.value == pytest.approx(means[0] - means[1] / 400, abs=1e-5)
    assert found == calibration(p.astype(np.float32), y, CLASSES, temperature=1.5, resamples=100)


def test_a_certain_error_costs_what_the_smallest_probability_does() -> None:
    p = np.array([[1.0, 0.0], [0.0, 1.0]] * 20, np.float32)
    found = calibration(p, np.zeros(40, np.int64), Targets("multiclass", ("a", "b")), temperature=None)
    assert found is not None
    assert found.log_loss.value == pytest.approx(-math.log(np.finfo(np.float32).eps) / 2, abs=1e-5)


def test_a_number_has_no_calibration() -> None:
    assert calibration(np.zeros(5), np.zeros(5), Targets("regression"), temperature=None) is None
    assert calibration(np.zeros((0, 4)), np.zeros(0, np.int64), CLASSES, temperature=None) is None


def test_chance_is_taken_off_the_error() -> None:
    rng = np.random.default_rng(7)
    share, noise = np.full(12, 1 / 12), np.full(12, 0.04**2)
    pure = rng.normal(0, 0.04, (400, 12))
    assert np.abs(pure).mean() > 0.03
    assert corrected_error(pure, share, noise).mean() < 0.013
    shifted = corrected_error(pure + 0.1, share, noise)
    assert shifted.mean() == pytest.approx(0.1, abs=0.003)
    spread = corrected_error(pure + rng.normal(0, 0.1, (400, 12)), share, noise)
    assert spread.mean() == pytest.approx(0.1 * math.sqrt(2 / math.pi), abs=0.005)
    assert corrected_error(np.array([0.1, np.nan]), np.array([1.0, 0.0]), np.zeros(2)) == pytest.approx(0.1)
