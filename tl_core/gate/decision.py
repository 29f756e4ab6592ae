"""What the gate decided: every rule with its verdict, as plain values ready for JSON, tags and the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tl_core.errors import FormatError
from tl_core.evaluation import Interval
from tl_core.gate.changes import Change

FORMAT_VERSION = 1
State = Literal["pass", "fail", "can't tell", "skipped"]


@dataclass(frozen=True)
class Rule:
    """One rule's verdict.

    name: metric, floors, newest, classes, groups, calibration, former, known, latency or size; text: the verdict in
    sentences; value: what was measured (a gain, where below 0 is worse; a rise of the calibration error; ms; MB), of
    several parts the one that decides; interval: each end at the gate's confidence; limit: what it is held against;
    further_rows: test rows that would decide, where the rule can't tell and a number is known; parts: what was measured
    of each class, group or kind of rows, the largest fall first, at most 50.
    """

    name: str
    state: State
    text: str
    value: float | None = None
    interval: Interval | None = None
    limit: float | None = None
    further_rows: int | None = None
    parts: tuple[Change, ...] = ()


@dataclass(frozen=True)
class SetUse:
    """The test set that decided.

    rows: contents in it; judged: those that counted; gone, relabelled, quarantined: those that the data no longer have
    as they were frozen; learned: those that one of the models learned from; newest: further rows, of the data since the
    champion's; uses: decisions on this set, this one included.
    """

    version: int
    hash: str
    rows: int
    judged: int
    gone: int
    relabelled: int
    quarantined: int
    learned: int
    newest: int
    uses: int


@dataclass(frozen=True)
class Stood:
    """A model that was judged. score: its watched metric on the rows that counted, None where none did."""

    name: str
    digest: str
    score: Interval | None


@dataclass(frozen=True)
class Decision:
    """Whether the challenger takes the champion's place.

    sentence: why, in plain words; champion: None for a first model; further_rows: labelled test rows that would decide
    what could not be told, None where nothing is open or no number is known; warnings: what is to be known besides.
    """

    promote: bool
    sentence: str
    rules: tuple[Rule, ...]
    further_rows: int | None
    metric: str
    confidence: float
    challenger: Stood
    champion: Stood | None
    test_set: SetUse
    warnings: tuple[str, ...]

    def rule(self, name: str) -> Rule:
        """The rule of a name. Raises KeyError where none has it."""
        try:
            return next(rule for rule in self.rules if rule.name == name)
        except StopIteration:
            raise KeyError(name) from None

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values, with the format's version."""
        from pydantic import TypeAdapter

        return {"format": FORMAT_VERSION, **TypeAdapter(Decision).dump_python(self, mode="json")}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Decision:
        """What as_json() gave. Raises FormatError on a newer format, or where it is no decision."""
        from pydantic import TypeAdapter, ValidationError

        version = value.get("format")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise FormatError(f"a decision of format {version}, this tl reads up to {FORMAT_VERSION}; update tl")
        try:
            return TypeAdapter(Decision).validate_python({k: v for k, v in value.items() if k != "format"})
        except ValidationError as error:
            raise FormatError(f"damaged decision: {str(error).splitlines()[0]}; decide again") from error
