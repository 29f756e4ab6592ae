"""What comparing new rows with a model's reference finds, as numbers and sentences; imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from tl_core.evaluation import Interval

FORMAT_VERSION = 1

DriftState = Literal["drift", "no drift", "too few"]


@dataclass(frozen=True)
class DriftTest:
    """One test of the new rows against held-out ones, by permutations of which row is new.

    name: unusual, distance, features, kernel, answers or confidence. p: of the test alone, corrected: for all tests
    made (Holm); alarm: corrected is at most the false-alarm rate. effect: how large the difference is, on the scale
    that the text names.
    """

    name: str
    p: float
    corrected: float
    alarm: bool
    effect: float
    text: str


@dataclass(frozen=True)
class AnswerShare:
    """How often the model gives an answer. known: share of the held-out rows; new: of the new ones; p: that this
    answer's share differs so much by chance, corrected for all answers."""

    name: str
    known: float
    new: float
    p: float


@dataclass(frozen=True)
class Strange:
    """A new row. id: its file or row; score: how unusual it is, 1 at the threshold; said: the model's answer."""

    id: str
    score: float
    said: str


@dataclass(frozen=True)
class Drift:
    """Whether new rows are of the kind that a model was made for.

    rows: new ones; held_out: those that they were compared with; alarm_rate: of false alarms, over all tests together;
    unusual: share of new rows beyond the reference's threshold; expected: of rows like the validation rows. accuracy,
    known_accuracy: expected of the new rows, and seen on held-out ones; None where it can't be told, as of rows
    that are unlike all that was learned from, of which a model may be sure for no reason. answers: those
    whose share changed most; strangest: the rows least like the training rows; notes: what was assumed or left out.
    """

    state: DriftState
    text: str
    rows: int
    held_out: int
    alarm_rate: float
    unusual: Interval
    expected: float
    tests: tuple[DriftTest, ...]
    accuracy: Interval | None
    known_accuracy: float | None
    answers: tuple[AnswerShare, ...]
    strangest: tuple[Strange, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        return {"format": FORMAT_VERSION, **asdict(self)}
