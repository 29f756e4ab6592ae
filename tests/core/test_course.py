"""The course of a training: which rows when, for how many epochs, at which learning rate."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tl_core.config import TuneConfig
from tl_core.training.drawing import drawn, even_batches
from tl_core.training.schedule import epochs_of, share


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_schedule_rises_and_falls(schedule: Any) -> None:
    tune = TuneConfig(schedule=schedule, warmup=0.2)
    shares = [share(tune, step, 20) for step in range(21)]
    assert shares[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    if schedule == "constant":
        assert set(shares[4:]) == {1.0}
    else:
        assert all(a > b for a, b in pairwise(shares[4:]))
        assert shares[20] == pytest.approx(0.0)


@pytest.mark.parametrize(("rows", "epochs"), [(1, 200), (16, 200), (17, 100), (160, 20), (320, 10), (10_000, 10)])
def test_few_rows_are_passed_often_enough_for_200_updates(rows: int, epochs: int) -> None:
    assert epochs_of(TuneConfig(), rows) == epochs
    assert epochs_of(TuneConfig(epochs=3), rows) == 3


def test_batches_are_even() -> None:
    assert [len(batch) for batch in even_batches(np.arange(33), 32)] == [17, 16]
    assert [len(batch) for batch in even_batches(np.arange(3), 8)] == [3]
    assert [len(batch) for batch in even_batches(np.arange(0), 8)] == [0]


def test_a_balanced_epoch_draws_classes_alike_and_a_plain_one_draws_each_row_once() -> None:
    rows = np.arange(100, 133)
    labels = np.array([0] * 28 + [1] * 4 + [3])
    order = drawn(rows, (0, 1), labels)
    counts = [int(np.isin(order, rows[labels == label]).sum()) for label in (0, 1, 3)]
    assert counts == [11, 11, 11]
    assert len(np.unique(order[np.isin(order, rows[labels == 0])])) == 11  # none twice while there are others
    assert set(rows[labels == 1]) <= set(order)
    assert not np.array_equal(order, drawn(rows, (0, 2), labels))
    assert np.array_equal(order, drawn(rows, (0, 1), labels))
    assert sorted(drawn(rows, (0, 1))) == rows.tolist()
