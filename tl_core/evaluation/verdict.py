"""Is the model better than its floors? Decided by intervals, said in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tl_core.evaluation.result import Evaluation, Floor, metric_title
from tl_core.types import Task

_MAJORITY: dict[Task, str] = {
    "multiclass": "always answering the training rows' commonest class",
    "multilabel": "always giving the labels that most training rows have",
    "regression": "always answering the training rows' mean",
}
_TITLES: dict[Task, str] = {
    "multiclass": "commonest class",
    "multilabel": "commonest labels",
    "regression": "training mean",
}


@dataclass(frozen=True)
class Verdict:
    """state: `above` where the gain over every floor has an interval above 0, `below` where some gain's interval is
    below 0, otherwise `unclear`; headline: a few words; sentence: with the numbers."""

    state: Literal["above", "unclear", "below"]
    headline: str
    sentence: str


def verdict(evaluation: Evaluation) -> Verdict:
    """The verdict on an evaluation, by the paired intervals of its gains over the floors."""
    ours = evaluation.summary[evaluation.watch]
    title = metric_title(evaluation.watch)
    result = (
        f"{title[0].upper()}{title[1:]} {ours.value:.3f} ({evaluation.confidence:.0%} interval {ours.low:.3f} to "
        f"{ours.high:.3f}) on {evaluation.n_test:,} test rows"
    )
    floors = evaluation.floors
    if not floors:
        return Verdict("unclear", "Not compared with any floor", f"{result}.")
    lost = {key: floor for key, floor in floors.items() if floor.gain.high < 0}
    unclear = {key: floor for key, floor in floors.items() if floor.gain.low <= 0 <= floor.gain.high}
    if lost:
        return Verdict("below", f"Below {_its(lost, floors)}", f"{result}, against {_against(lost, evaluation.task)}.")
    if unclear:
        return Verdict(
            "unclear",
            f"Not clearly above {_its(unclear, floors)}",
            f"{result}, against {_against(unclear, evaluation.task)}.",
        )
    return Verdict(
        "above", f"Clearly above {_its(floors, floors)}", f"{result}, against {_against(floors, evaluation.task)}."
    )


def meaning(evaluation: Evaluation, strategy: str = "probe") -> str:
    """What the verdict means in plain words, without a full stop: does pretraining help on these data?

    strategy: as tuning names it, because a fine-tuned network owes its gain to more than its first weights, and one
    that was trained from scratch owes it nothing.
    """
    task, floors = evaluation.task, evaluation.floors
    majority, random = floors.get("majority"), floors.get("random_init")
    if majority is not None and majority.gain.high < 0:
        return f"worse than {_MAJORITY[task]} by {_amount(majority, task)}: look at the labels and the split first"
    if majority is not None and majority.gain.low <= 0:
        return (
            f"can't tell it from {_MAJORITY[task]}: the features say little about these labels, or the test samples "
            "are too few"
        )
    if random is None:
        better = "" if majority is None else f"better than {_MAJORITY[task]} by {_amount(majority, task)}; "
        return f"{better}not compared with random weights"
    same = "the same network with random weights"
    what = "pretraining"
    if strategy == "probe":
        ours, rival, beat, helps = "pretrained features", same, "beat", "pretraining helps here"
    elif strategy == "scratch":
        ours, rival, beat, helps = (
            "the network trained from random weights", f"a probe on {same}", "beats",
            "training it helps here, and pretraining had no part in it",
        )  # fmt: skip
        what = "training it"
    else:
        ours, rival, beat, helps = (
            "the fine-tuned network", f"a probe on {same}", "beats", "pretraining and fine-tuning together help here"
        )  # fmt: skip
    if random.gain.low > 0:
        return f"{ours} {beat} {rival} by {_amount(random, task)}: {helps}"
    if random.gain.high < 0:
        return f"{rival} does better than {ours} by {_amount(random, task)}: {what} hurts here"
    return (
        f"can't tell whether {what} helps here: {ours} may be {_points(max(0.0, -random.gain.low), task)} worse or "
        f"{_points(max(0.0, random.gain.high), task)} better than {rival}"
    )


def _amount(floor: Floor, task: Task) -> str:
    """The gain's ends without their sign, the smaller first: `12 to 20 points`."""
    small, large = sorted((abs(floor.gain.low), abs(floor.gain.high)))
    first, last = _points(small, task), _points(large, task)
    return last if first == last else f"{first.partition(' ')[0]} to {last}"


def _points(gain: float, task: Task) -> str:
    """A difference of the watched metric in hundredths; R² has no such name for them."""
    if task == "regression":
        return f"{gain:.2f} of R²"
    return f"{gain * 100:.0f} points" if round(gain * 100) >= 2 else f"{gain * 100:.1f} points"


def _its(some: dict[str, Floor], floors: dict[str, Floor]) -> str:
    if len(some) < len(floors):
        return "one of its floors"
    return "its floor" if len(floors) == 1 else "its floors"


def floor_title(name: str, task: Task) -> str:
    """A floor in a few words, for a picture."""
    return {"majority": _TITLES[task], "random_init": "random weights"}.get(name, name)


def _against(floors: dict[str, Floor], task: Task) -> str:
    return " and ".join(
        f"{floor.value.value:.3f} for {_model(key, task)} (gain {floor.gain.low:+.3f} to {floor.gain.high:+.3f})"
        for key, floor in floors.items()
    )


def _model(floor: str, task: Task) -> str:
    if floor == "majority":
        return _MAJORITY[task]
    return "the same head on the same network with random weights" if floor == "random_init" else floor
