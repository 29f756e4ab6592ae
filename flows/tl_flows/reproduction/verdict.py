"""What a reproduction comes to: every difference in the order of the steps, and one of three outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tl_flows.reproduction.closeness import Closeness

Outcome = Literal["identical", "within tolerance", "different"]
Kind = Literal["data", "code", "parameter", "output", "page", "environment"]

DIFFERENT = 3
EXIT_CODES: Mapping[Outcome, int] = {"identical": 0, "within tolerance": 0, "different": DIFFERENT}
_NO_RESULT = ("code", "page", "environment")  # differences that are told, and decide nothing by themselves


@dataclass(frozen=True)
class Difference:
    """What is not the same, and where. step: empty for the environment; then, now: as people write them."""

    step: str
    kind: Kind
    what: str
    then: str
    now: str

    def describe(self) -> str:
        """`parameter seed: 0 then, 1 now`; the step stands beside it."""
        name = f"{self.kind} {self.what}" if self.kind in ("data", "parameter", "code") else self.what
        return f"{name}: {self.then} then, {self.now} now"


@dataclass(frozen=True)
class Reproduction:
    """A run that was made anew. name: as it was asked for; folder: where it lies, None where it was taken away.

    differences: in the order of the steps; code: what is installed and did not make the run; closeness: None where the
    results are identical or of other inputs.
    """

    name: str
    commit: str
    outcome: Outcome
    sentence: str
    differences: tuple[Difference, ...]
    code: tuple[str, ...]
    closeness: Closeness | None
    seconds: float
    folder: str | None

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values; a difference that is no number as null."""
        value = asdict(self)
        if self.closeness is not None and self.closeness.difference == float("inf"):
            value["closeness"]["difference"] = None
        return value


def judge(
    name: str, differences: Sequence[Difference], comparable: bool, close: Closeness, tolerance: float
) -> tuple[Outcome, str]:
    """The outcome and its sentence.

    comparable: data, parameters, the manifest, the backbone and its weights are the same, so that metrics may be held
    against each other within a tolerance.
    """
    deciding = [one for one in differences if one.kind not in _NO_RESULT]
    if not deciding:
        return "identical", f"{name} is reproduced to the byte: manifest, ranking, model, predictions and metrics"
    first = f"the first difference is in {deciding[0].step}: {deciding[0].describe()}"
    if comparable and close.within(tolerance):
        return "within tolerance", f"{name} is reproduced within {tolerance:g}: {close.describe()}; {first}"
    told = f"; {close.describe()}" if comparable else ""
    return "different", f"{name} is not reproduced: {first}{told}"
