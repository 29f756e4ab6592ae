"""What a page shows of a decision beyond its verdicts: rows that changed sides, new classes, time and size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tl_core.errors import FormatError
from tl_core.evaluation.bootstrap import Bools, Ints
from tl_core.evaluation.predictions import decided
from tl_core.gate import Asked, Candidate, Decision
from tl_core.gate.changes import ClassScores
from tl_core.manifest import Changes, Manifest
from tl_core.manifest import compare as compare_data
from tl_core.report.samples import shown, weight

FORMAT_VERSION = 1
MAX_ROWS = 24  # of each side
MAX_BYTES = 1_500_000  # of the contents of each side

Render = Callable[[int], str | None]


@dataclass(frozen=True)
class Contested:
    """A test row that one of the two models gets right and the other does not (of values: that one comes nearer to).

    champion, challenger: what each says, with its probability; newest: the champion's data lacked it; fragment: the
    loader's `render`, trusted HTML, None where there was no room for it.
    """

    id: str
    label: str
    champion: str
    challenger: str
    champion_probability: float | None
    challenger_probability: float | None
    newest: bool
    fragment: str | None


@dataclass(frozen=True)
class Side:
    """Rows that one model alone gets right: how many, and the clearest of them."""

    count: int
    rows: tuple[Contested, ...] = ()


@dataclass(frozen=True)
class NewClass:
    """A class that the champion can't name. rows: of the test set; f1: the new model's, None without a row."""

    name: str
    rows: int
    f1: float | None


@dataclass(frozen=True)
class Cost:
    """What a model takes: milliseconds for one sample from its file to the answer, and 10^6 bytes with its weights."""

    milliseconds: float | None
    megabytes: float


@dataclass(frozen=True)
class Contest:
    """A decision with what was seen while it was made.

    lost, won: rows that only the champion, and only the challenger gets right; data: from the champion's to the
    challenger's; champion: None for a first model; max_uses: gate.max_uses.
    """

    decision: Decision
    modality: str
    task: str
    lost: Side
    won: Side
    new_classes: tuple[NewClass, ...]
    data: Changes | None
    champion: Cost | None
    challenger: Cost
    max_uses: int

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values, with the format's version."""
        from pydantic import TypeAdapter

        return {"format": FORMAT_VERSION, **TypeAdapter(Contest).dump_python(self, mode="json")}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Contest:
        """What as_json() gave. Raises FormatError on another format, or where it is no contest."""
        from pydantic import TypeAdapter, ValidationError

        if value.get("format") != FORMAT_VERSION:
            raise FormatError(
                f"what was seen of a decision has format {value.get('format')}, this tl reads {FORMAT_VERSION}; "
                "retrain with one version of tl"
            )
        try:
            return TypeAdapter(Contest).validate_python({k: v for k, v in value.items() if k != "format"})
        except ValidationError as error:
            raise FormatError(f"damaged record of a decision: {str(error).splitlines()[0]}; retrain") from error


def contest(
    decision: Decision,
    asked: Asked,
    manifest: Manifest,
    challenger: tuple[Candidate, Cost],
    champion: tuple[Candidate, Cost, Manifest] | None,
    render: Render,
    *,
    max_uses: int,
) -> Contest:
    """What is to be shown of a decision on two models, or on a first one.

    manifest: the rows' data; champion: with the data that it was made from; render: the content of a manifest row as
    HTML, None where it can't be read any more.
    """
    lost = won = Side(0)
    new: tuple[NewClass, ...] = ()
    if champion is not None and decision.rules:
        lost, won = _sides(asked, manifest, champion[0], challenger[0], render)
        new = _new_classes(asked, champion[0], challenger[0])
    return Contest(
        decision=decision,
        modality=manifest.modality,
        task=manifest.targets.task,
        lost=lost,
        won=won,
        new_classes=new,
        data=None if champion is None else compare_data(champion[2], manifest),
        champion=None if champion is None else champion[1],
        challenger=challenger[1],
        max_uses=max_uses,
    )


def _sides(
    asked: Asked, manifest: Manifest, champion: Candidate, challenger: Candidate, render: Render
) -> tuple[Side, Side]:
    counted = np.flatnonzero((asked.frozen | asked.newest) & ~asked.learned)
    truth = asked.truth[counted]
    said = [
        decided(asked.targets, model.predictions[counted], truth, manifest.separator)
        for model in (champion, challenger)
    ]
    rows = asked.rows[counted]
    ids, labels = manifest.ids(rows), manifest.table["label"].take(rows).to_pylist()

    def row(at: int, fragment: str | None) -> Contested:
        (before, before_sure, _), (now, now_sure, _) = said
        return Contested(
            id=ids[at],
            label=str(labels[at]),
            champion=shown(before[at]),
            challenger=shown(now[at]),
            champion_probability=_probability(before_sure[at]),
            challenger_probability=_probability(now_sure[at]),
            newest=bool(asked.newest[counted[at]]),
            fragment=fragment,
        )

    def side(places: Ints) -> Side:
        first = places[:MAX_ROWS]
        return Side(len(places), tuple(map(row, first.tolist(), _within(rows[first], render))))

    lost, won = _changed_sides(asked.targets.task, said, truth)
    return side(lost), side(won)


def _changed_sides(task: str, said: Sequence[Sequence[list[object]]], truth: npt.NDArray[np.generic]) -> Sequence[Ints]:
    """Positions that only the first, and only the second gets right, the surest wrong answers first; of values those
    that it comes nearer to, the largest change first."""
    if task == "regression":
        first, second = (np.abs(np.asarray(values, np.float64) - truth.astype(np.float64)) for values, _, _ in said)
        order = np.argsort(-np.abs(first - second), kind="stable")
        return order[(first < second)[order]], order[(first > second)[order]]
    right: list[Bools] = [np.asarray(correct, np.bool_) for _, _, correct in said]
    sure = [np.asarray(probabilities, np.float64) for _, probabilities, _ in said]
    found = []
    for one, other in ((0, 1), (1, 0)):
        places = np.flatnonzero(right[one] & ~right[other])
        found.append(places[np.argsort(-sure[other][places], kind="stable")])
    return found


def _within(rows: Ints, render: Render) -> Iterator[str | None]:
    """The contents of rows, as far as there is room for them."""
    room = MAX_BYTES
    for row in rows.tolist():
        fragment = render(row)
        fits = weight(fragment) <= room
        room -= weight(fragment) if fits else 0
        yield fragment if fits else None


def _new_classes(asked: Asked, champion: Candidate, challenger: Candidate) -> tuple[NewClass, ...]:
    known = set(champion.classes)
    names = [name for name in challenger.classes if name not in known]
    counted = asked.frozen & ~asked.learned
    if not names or not counted.any():
        return tuple(NewClass(name, 0, None) for name in names)
    scores = ClassScores(
        asked.targets, champion.predictions[counted], challenger.predictions[counted], asked.truth[counted], names
    )
    f1 = scores.score(scores.sums(np.ones((1, int(counted.sum()))))[1])[0] if scores.names else []
    found = {
        name: NewClass(name, int(rows), round(float(value), 6))
        for name, rows, value in zip(scores.names, scores.rows, f1)
    }
    return tuple(found.get(name, NewClass(name, 0, None)) for name in names)


def _probability(value: object) -> float | None:
    return round(float(value), 4) if isinstance(value, float) else None
