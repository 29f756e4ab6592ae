"""Which epoch of a training is kept: the last that is not clearly worse than the best."""

from __future__ import annotations

import numpy as np
import pytest

from tl_core.selection.outcomes import Outcomes
from tl_core.training.run import clearly_worse


def right(*places: bool) -> Outcomes:
    return Outcomes("multiclass", np.array(places, float)[:, None])


def mostly(rows: int, wrong: int, first: int = 0) -> Outcomes:
    """All right but for so many rows in a row."""
    return right(*(not first <= row < first + wrong for row in range(rows)))


@pytest.mark.parametrize(
    ("own", "top", "worse"),
    [
        (mostly(50, 5), mostly(50, 5), False),
        (mostly(50, 4), mostly(50, 5), False),  # better, if with a higher loss
        (mostly(20, 1), mostly(20, 0), False),  # one row tells nothing
        (mostly(400, 80), mostly(400, 20), True),
        (mostly(400, 46, 0), mostly(400, 40, 200), False),  # six points of 86 rows that they disagree on
        (mostly(400, 46), mostly(400, 40), True),  # the same six, and they agree on all else
    ],
)
def test_an_epoch_is_clearly_worse_by_two_standard_errors_of_the_difference(
    own: Outcomes, top: Outcomes, worse: bool
) -> None:
    assert clearly_worse(own, top, 0) is worse
    assert clearly_worse(own, top, 1) is worse


def test_regression_goes_by_r2() -> None:
    truth = np.linspace(0, 1, 200)
    noise = np.random.default_rng(0).normal(0, 0.05, 200)

    def of(predicted: np.ndarray) -> Outcomes:
        return Outcomes.of("regression", predicted, truth)

    assert clearly_worse(of(truth + 4 * noise), of(truth + noise), 0)
    assert not clearly_worse(of(truth + noise[::-1]), of(truth + noise), 0)
