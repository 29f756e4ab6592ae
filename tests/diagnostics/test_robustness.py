"""Robustness: planted harm is found, paired with the same rows as they are, and what is chance is not called harm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tl_core.diagnostics.results import Robustness
from tl_core.diagnostics.robustness import robustness
from tl_core.errors import UserError
from tl_core.manifest import Manifest, scan
from tl_core.types import Corrupt, Loader, Source, Targets

TWO = Targets("multiclass", ("a", "b"))


class Numbers(Loader):
    """A sample is a number in inline text; what is above 0 is of class b."""

    modality = "numbers"
    extensions = frozenset({".number"})
    inline = True

    def __init__(self, corruptions: Mapping[str, Corrupt]) -> None:
        self.corruptions = corruptions  # type: ignore[misc]
        self.decoded = 0

    def decode(self, source: Source) -> float:
        self.decoded += 1
        return float(str(source))

    def render(self, source: Source) -> str:
        return ""


class Rows:
    """The part of a manifest that the diagnostic reads."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = values

    def digests(self, rows: np.ndarray) -> list[str]:
        return [f"{row:032x}" for row in rows]

    def samples(self, rows: np.ndarray) -> Any:
        from tl_core.types import Sample

        return (Sample(int(r), str(r), f"{r:032x}", str(self.values[r]), None, "test") for r in rows)


def shift(per_degree: float) -> Corrupt:
    """Every number moves down, the further the higher the severity."""
    return lambda decoded, severity, rng: decoded - per_degree * severity


def flips(share: float) -> Corrupt:
    """A share of numbers changes sign, whatever the severity."""
    return lambda decoded, severity, rng: -decoded if rng.random() < share else decoded


def two_classes(decoded: Sequence[float]) -> np.ndarray:
    return np.stack([np.asarray(decoded) <= 0, np.asarray(decoded) > 0], axis=1).astype(np.float64)


def look(
    values: Sequence[float],
    corruptions: Mapping[str, Corrupt],
    predict: Callable[[Sequence[Any]], np.ndarray] = two_classes,
    targets: Targets = TWO,
    truth: np.ndarray | None = None,
    **settings: Any,
) -> Robustness | None:
    labels = (np.asarray(values) > 0).astype(np.int64) if truth is None else truth
    rows: Any = Rows(values)
    settings = {"resamples": 200, **settings}
    return robustness(rows, np.arange(len(values)), Numbers(corruptions), predict, labels, targets, **settings)


EVEN = np.linspace(-1, 1, 200)  # half of each class


def test_planted_harm_is_found_and_grows_with_severity() -> None:
    found = look(EVEN, {"nothing": shift(0), "drift": shift(0.15)}, most=100)
    assert found is not None
    assert (found.state, found.worst, found.rows) == ("warn", "drift", 100)
    assert (found.plain.value, found.plain.high) == (1, 1)
    nothing, drift = found.corruptions
    assert [severity for severity, _, _ in drift.points] == [1, 3, 5]
    # of numbers above 0 those below 0.15, 0.45 and 0.75 fall to the other side
    assert [after.value for _, after, _ in drift.points] == pytest.approx([0.925, 0.775, 0.625], abs=0.03)
    for _, after, change in drift.points:
        assert change.value == pytest.approx(after.value - 1)
        assert change.low < change.value < change.high < 0
    assert all(change.value == 0 and change.low < 0 < change.high for _, _, change in nothing.points)
    assert found.text.startswith("Even mild harm costs: by drift accuracy goes from 1.000 to 0.9")
    assert "on 100 test rows. At severity 5 accuracy loses most by drift" in found.text


def test_harmless_kinds_are_fine() -> None:
    found = look(EVEN, {"one": shift(0.0001), "two": shift(0.0002)}, most=200)
    assert found is not None
    assert (found.state, found.worst) == ("ok", None)
    assert found.text.startswith("None of 2 kinds of mild harm costs 0.05 of accuracy on 200 test rows. Not even")


def test_few_rows_can_not_tell() -> None:
    lost_one = look(np.linspace(-1, 1, 12), {"drift": shift(0.1)}, severities=(1,))
    lost_three = look(np.linspace(-1, 1, 12), {"drift": shift(0.5)}, severities=(1,))
    assert lost_one is not None
    assert lost_three is not None
    assert (lost_one.state, lost_three.state) == ("unclear", "unclear")
    assert lost_one.text.startswith("12 test rows can't tell whether mild harm costs: by drift accuracy goes")
    assert lost_three.text.startswith("Mild harm may cost: by drift accuracy goes from 1.000 to 0.750")
    assert "so few rows can bring that about by chance" in lost_three.text


def test_where_no_row_changes_sides_the_interval_says_how_many_still_might() -> None:
    def predict(decoded: Sequence[float]) -> np.ndarray:
        sure = two_classes(decoded)
        return sure * 0.5 + 0.5 * np.abs(np.asarray(decoded))[:, None] / 10

    found = look(np.concatenate([EVEN - 2, EVEN + 2]), {"drift": shift(0.1)}, predict, most=64)
    assert found is not None
    _, _, change = found.corruptions[0].points[0]
    assert change.value == 0
    assert change.method == "wilson"
    assert -0.06 < change.low < 0 < change.high < 0.06


def test_chance_is_seldom_called_harm() -> None:
    """Kinds that change sides either way: at 90% confidence, at most one model of ten is warned of."""
    rng = np.random.default_rng(0)
    kinds = {f"kind {k}": flips(0.05) for k in range(5)}
    warned = 0
    for trial in range(40):
        values = rng.uniform(-1, 1, 64)
        truth = rng.integers(0, 2, 64)  # the model knows nothing, so that nothing can be lost
        found = look(values, kinds, truth=truth, severities=(1,), seed=trial, resamples=100)
        assert found is not None
        warned += found.state == "warn"
    assert warned <= 4


def test_rows_are_taken_from_all_classes_and_the_same_every_time() -> None:
    values = np.concatenate([np.full(190, -0.5), np.full(10, 0.5)])
    seen: list[list[float]] = []

    def predict(decoded: Sequence[float]) -> np.ndarray:
        seen.append(list(decoded))
        return two_classes(decoded)

    first = look(values, {"drift": shift(0.2)}, predict, most=40)
    again = look(values, {"drift": shift(0.2)}, predict, most=40)
    assert first == again
    assert seen[0] == seen[4]
    assert (len(seen[0]), sum(value > 0 for value in seen[0])) == (40, 2)


def test_each_row_is_decoded_once() -> None:
    loader, rows = Numbers({"a": shift(0.1), "b": flips(0.2)}), np.arange(50)
    manifest: Any = Rows(EVEN[75:125].tolist())
    truth = (EVEN[75:125] > 0).astype(np.int64)
    robustness(manifest, rows, loader, two_classes, truth, TWO, most=30, resamples=50)
    assert loader.decoded == 30


def test_a_row_is_harmed_in_the_same_way_at_every_severity_and_with_any_company() -> None:
    drawn: dict[float, set[float]] = {}

    def harm(decoded: float, severity: int, rng: np.random.Generator) -> float:
        drawn.setdefault(decoded, set()).add(rng.random())
        return decoded

    look(EVEN, {"harm": harm}, most=20)
    look(EVEN, {"harm": harm}, most=40)
    assert {len(numbers) for numbers in drawn.values()} == {1}
    assert len(set.union(*drawn.values())) == 40


def test_regression_and_labels() -> None:
    def values(decoded: Sequence[float]) -> np.ndarray:
        return np.asarray(decoded)

    found = look(EVEN, {"drift": shift(0.3)}, values, Targets("regression"), EVEN)
    assert found is not None
    assert (found.state, found.plain.value) == ("warn", 1)
    labels = np.stack([EVEN > 0, EVEN < 0.5, EVEN > -0.5], axis=1).astype(np.float32)

    def decide(decoded: Sequence[float]) -> np.ndarray:
        x = np.asarray(decoded)
        return np.stack([x > 0, x < 0.5, x > -0.5], axis=1).astype(np.float64)

    found = look(EVEN, {"drift": shift(0.3)}, decide, Targets("multilabel", ("a", "b", "c")), labels)
    assert found is not None
    assert (found.state, found.worst) == ("warn", "drift")


def test_groups_are_resampled_whole() -> None:
    groups = [str(i // 20) for i in range(200)]
    single = look(EVEN, {"drift": shift(0.15)}, most=200)
    grouped = look(EVEN, {"drift": shift(0.15)}, most=200, groups=groups)
    assert single is not None
    assert grouped is not None
    a, b = single.corruptions[0].points[0][2], grouped.corruptions[0].points[0][2]
    assert a.value == b.value
    assert b.high - b.low > 1.5 * (a.high - a.low)  # what is lost lies in one or two groups


@pytest.mark.parametrize(
    ("values", "corruptions", "settings"),
    [(EVEN, {}, {}), (EVEN, {"a": shift(1)}, {"most": 0}), (EVEN[:1], {"a": shift(1)}, {})],
    ids=["no corruptions", "turned off", "one row"],
)
def test_none_where_there_is_nothing_to_say(values: np.ndarray, corruptions: Any, settings: dict[str, int]) -> None:
    assert look(values, corruptions, **settings) is None


def test_none_where_the_metric_is_undefined() -> None:
    def predict(decoded: Sequence[float]) -> np.ndarray:
        return np.asarray(decoded)

    assert look(EVEN, {"a": shift(1)}, predict, Targets("regression"), np.ones(200)) is None


def test_a_sample_that_has_changed_is_named(tmp_path: Path, timeseries: Any, waves: Path) -> None:
    from tl_core.config import validate

    manifest: Manifest = scan(waves, validate({}), timeseries.loaders(), progress=False)
    rows = manifest.rows("test")
    victim = manifest.sample(int(rows[0]))
    np.save(Path(victim.source), np.zeros(50))

    def predict(decoded: Sequence[Any]) -> np.ndarray:
        return np.full((len(decoded), 3), 1 / 3)

    loader = timeseries.loader("timeseries")
    with pytest.raises(UserError, match=f"{victim.id} has changed"):
        robustness(manifest, rows, loader, predict, manifest.target_array(rows), manifest.targets)
