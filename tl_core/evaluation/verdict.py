"""Is the model better than its floors? Decided by intervals, said in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tl_core.evaluation.result import Evaluation, Floor, points
from tl_core.types import Task
from tl_core.watch import metric_title

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


RIVALS = ("baseline", "random_init", "scratch")  # floors that learn, but not from anybody else's data
_RIVALS = {
    "baseline": "a probe on plain features, without a network,",
    "random_init": "the same network with random weights",
    "scratch": "the same network trained from random weights",
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


def decisive(evaluation: Evaluation) -> str | None:
    """The rival without pretraining that decides whether pretraining helps, None where there is none.

    One that is surely better than the model, else one that it is not surely better than, else the best of them.
    """
    rivals = {name: evaluation.floors[name] for name in RIVALS if name in evaluation.floors}
    lost = [name for name, floor in rivals.items() if floor.gain.high < 0]
    if lost:
        return min(lost, key=lambda name: rivals[name].gain.high)
    unclear = [name for name, floor in rivals.items() if floor.gain.low <= 0]
    if unclear:
        return min(unclear, key=lambda name: rivals[name].gain.low)
    return min(rivals, key=lambda name: rivals[name].gain.value, default=None)


def transfer(evaluation: Evaluation, strategy: str = "probe") -> Literal["helps", "hurts", "can't tell"] | None:
    """Whether pretraining helps on these data: None where nothing that could say so was compared with.

    It helps where the model is surely better than every rival without pretraining (a probe on plain features, one on
    the same network with random weights, that network trained from them), and hurts where one of these is surely
    better. strategy: as tuning names it; what was trained from scratch says nothing of pretraining.
    """
    majority, rival = evaluation.floors.get("majority"), decisive(evaluation)
    if rival is None or strategy == "scratch":
        return None
    gain = evaluation.floors[rival].gain
    if gain.high < 0:
        return "hurts"
    if gain.low <= 0 or (majority is not None and majority.gain.low <= 0):
        return "can't tell"
    return "helps"


def meaning(evaluation: Evaluation, strategy: str = "probe") -> str:
    """What the verdict means in plain words, without a full stop: does pretraining help on these data?

    strategy: as tuning names it, because a fine-tuned network owes its gain to more than its first weights, and one
    that was trained from scratch owes it nothing.
    """
    task, floors = evaluation.task, evaluation.floors
    majority, name = floors.get("majority"), decisive(evaluation)
    if majority is not None and majority.gain.high < 0:
        return f"worse than {_MAJORITY[task]} by {_amount(majority, task)}: look at the labels and the split first"
    lost = name is not None and floors[name].gain.high < 0
    if majority is not None and majority.gain.low <= 0 and not lost:
        return (
            f"can't tell the model from {_MAJORITY[task]}: the features say little about these labels, or the test "
            "samples are too few"
        )
    if name is None:
        better = "" if majority is None else f"better than {_MAJORITY[task]} by {_amount(majority, task)}; "
        return f"{better}not compared with random weights"
    rival, same, what = floors[name], _RIVALS[name], "pretraining"
    if strategy == "probe":
        ours, beat, helps = "pretrained features", "beat", "pretraining helps here"
    elif strategy == "scratch":
        ours, beat, what = "the network trained from random weights", "beats", "training it"
        helps = "training it helps here, and pretraining had no part in it"
    else:
        ours, beat = "the fine-tuned network", "beats"
        together = "scratch" not in floors  # whose training was the same
        helps = "pretraining and fine-tuning together help here" if together else "pretraining helps here"
    if strategy != "probe" and name == "random_init":
        same = f"a probe on {same}"
    if rival.gain.low > 0:
        return f"{ours} {beat} {same} by {_amount(rival, task)}: {helps}"
    if rival.gain.high < 0:
        return f"{same} does better than {ours} by {_amount(rival, task)}: {what} hurts here"
    return (
        f"can't tell whether {what} helps here: {ours} may be {points(max(0.0, -rival.gain.low), task)} worse or "
        f"{points(max(0.0, rival.gain.high), task)} better than {same.rstrip(',')}"
    )


def _amount(floor: Floor, task: Task) -> str:
    """The gain's ends without their sign, the smaller first: `12 to 20 points`."""
    small, large = sorted((abs(floor.gain.low), abs(floor.gain.high)))
    first, last = points(small, task), points(large, task)
    return last if first == last else f"{first.partition(' ')[0]} to {last}"


def _its(some: dict[str, Floor], floors: dict[str, Floor]) -> str:
    if len(some) < len(floors):
        return "one of its floors"
    return "its floor" if len(floors) == 1 else "its floors"


def floor_title(name: str, task: Task) -> str:
    """A floor in a few words, for a picture."""
    titles = {"random_init": "random weights", "baseline": "plain features", "scratch": "trained from scratch"}
    return {"majority": _TITLES[task], **titles}.get(name, name)


def _against(floors: dict[str, Floor], task: Task) -> str:
    return " and ".join(
        f"{floor.value.value:.3f} for {_model(key, task)} (gain {floor.gain.low:+.3f} to {floor.gain.high:+.3f})"
        for key, floor in floors.items()
    )


def _model(floor: str, task: Task) -> str:
    if floor == "majority":
        return _MAJORITY[task]
    if floor == "random_init":
        return "the same head on the same network with random weights"
    return _RIVALS.get(floor, floor).rstrip(",")
