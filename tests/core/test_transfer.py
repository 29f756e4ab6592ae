"""Whether pretraining helps: only where nothing without it does as well, and never where something does better."""

from __future__ import annotations

from typing import Any

import pytest

from tl_core.evaluation import Evaluation, Floor, Interval, decisive, meaning, transfer


def evaluation(**gains: tuple[float, float]) -> Evaluation:
    """An evaluation whose floors have these gains."""
    floors = {
        name: Floor(Interval.of(0.5, 0.4, 0.6), Interval.of((low + high) / 2, low, high))
        for name, (low, high) in gains.items()
    }
    ours = {"accuracy": Interval.of(0.8, 0.7, 0.9)}
    return Evaluation("multiclass", "accuracy", ours, (), None, (), floors, 100, 0.9, ())


AHEAD, BEHIND, LEVEL = (0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1)
PLAIN = "a probe on plain features, without a network"


@pytest.mark.parametrize(
    ("gains", "says", "rival"),
    [
        ({"majority": AHEAD, "baseline": AHEAD, "random_init": (0.3, 0.4), "scratch": AHEAD}, "helps", "baseline"),
        ({"majority": AHEAD, "baseline": BEHIND, "random_init": AHEAD, "scratch": LEVEL}, "hurts", "baseline"),
        ({"majority": AHEAD, "baseline": AHEAD, "random_init": LEVEL, "scratch": AHEAD}, "can't tell", "random_init"),
        ({"majority": AHEAD, "baseline": AHEAD, "random_init": AHEAD, "scratch": BEHIND}, "hurts", "scratch"),
        ({"majority": LEVEL, "baseline": AHEAD}, "can't tell", "baseline"),
        ({"majority": AHEAD}, None, None),
        ({}, None, None),
    ],
)
def test_the_rival_that_does_best_decides(
    gains: dict[str, tuple[float, float]], says: str | None, rival: str | None
) -> None:
    assert transfer(evaluation(**gains)) == says
    assert decisive(evaluation(**gains)) == rival


def test_what_was_trained_from_scratch_says_nothing_of_pretraining() -> None:
    assert transfer(evaluation(baseline=AHEAD, random_init=AHEAD), "scratch") is None


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (f"pretrained features beat {PLAIN}, by 10 to 20 points: pretraining helps here", {"baseline": AHEAD}),
        (
            f"{PLAIN}, does better than pretrained features by 10 to 20 points: pretraining hurts here",
            {"baseline": BEHIND, "random_init": AHEAD},
        ),
        (
            "can't tell whether pretraining helps here: pretrained features may be 10 points worse or 10 points better "
            f"than {PLAIN}",
            {"baseline": LEVEL, "random_init": AHEAD},
        ),
        (
            "the fine-tuned network beats the same network trained from random weights by 10 to 20 points: pretraining "
            "helps here",
            {"scratch": AHEAD, "random_init": (0.4, 0.5), "strategy": "finetune"},
        ),
        (
            f"the fine-tuned network beats {PLAIN}, by 10 to 20 points: pretraining and fine-tuning together help here",
            {"baseline": AHEAD, "strategy": "lp_ft"},
        ),
    ],
)
def test_it_is_said_in_plain_words(text: str, facts: dict[str, Any]) -> None:
    strategy = facts.pop("strategy", "probe")
    assert meaning(evaluation(majority=(0.5, 0.6), **facts), strategy) == text
