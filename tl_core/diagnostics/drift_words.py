"""What tests of drift say, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tl_core.diagnostics.drift_result import DriftState, DriftTest
from tl_core.diagnostics.drift_tests import Tested
from tl_core.evaluation import Interval
from tl_core.types import Task


@dataclass(frozen=True)
class Effects:
    """unusual: share of new rows beyond the threshold; expected: of rows like the validation rows; auc: the interval of
    the features' AUC, None where they were not compared."""

    unusual: Interval
    expected: float
    auc: tuple[float, float] | None
    task: Task

    @property
    def strange(self) -> bool:
        """Whether surely more rows than expected are beyond the threshold."""
        return self.unusual.low > self.expected


def sentence(test: Tested, corrected: float, alarm: bool, effects: Effects) -> DriftTest:
    """A test with its sentence."""
    share = effects.unusual
    size = test.effect
    texts = {
        "unusual": f"{share.value:.1%} of the new rows ({share.low:.1%} to {share.high:.1%}) are unlike the training "
        f"rows, {effects.expected:.0%} are expected",
        "distance": f"a new row lies further from the training rows than a held-out one in {size:.0%} of pairs "
        "(50%: alike)",
        "kernel": f"the kernel means of new and known features are {size:.4f} apart (squared; 0: alike)",
        "confidence": f"the model is less sure of a new row than of a held-out one in {size:.0%} of pairs (50%: alike)",
        "answers": _answers(size, effects.task),
    }
    if effects.auc is not None:
        low, high = effects.auc
        texts["features"] = (
            f"a classifier tells new rows from known ones by their features with AUC {size:.3f} "
            f"({low:.3f} to {high:.3f}; 0.5: alike)"
        )
    text = texts[test.name]
    end = f"corrected p {_p(corrected)}"
    said = f"{text[:1].upper()}{text[1:]}: {'more than chance explains' if alarm else 'chance may explain it'} ({end})."
    return DriftTest(test.name, test.p, round(corrected, 6), alarm, round(size, 6), said)


def verdict(
    state: DriftState, rows: int, tests: Sequence[DriftTest], effects: Effects, gap: str | None, alarm_rate: float
) -> str:
    """The result in a few sentences. gap: why drift could have been missed."""
    share = effects.unusual
    unusual = f"{share.value:.1%} of them ({share.low:.1%} to {share.high:.1%}) are unlike the training rows"
    rate = f"{len(tests)} tests, together at a false-alarm rate of {alarm_rate:.3g}"
    if state == "drift":
        alarmed = sorted((t for t in tests if t.alarm and t.name != "unusual"), key=lambda t: t.corrected)
        why = "".join(f" {test.text}" for test in alarmed[:3])
        return (
            f"The {rows:,} new rows are of another kind than those the model was made for. {unusual}, "
            f"{effects.expected:.0%} are expected.{why} ({rate}.)"
        )
    if state == "no drift":
        auc = next((test.effect for test in tests if test.name == "features"), None)
        told = "" if auc is None or effects.auc is None else (
            f", and a classifier tells them from known rows with AUC {auc:.3f} "
            f"({effects.auc[0]:.3f} to {effects.auc[1]:.3f})"
        )  # fmt: skip
        return f"No sign of drift in {rows:,} new rows: {unusual}, {effects.expected:.0%} are expected{told}. ({rate}.)"
    return f"Too few rows to tell: {gap}. {rows:,} new rows; {unusual}. ({rate}.)"


def _answers(size: float, task: Task) -> str:
    if task == "regression":
        return f"the distributions of predicted values are up to {size:.0%} apart"
    if task == "multilabel":
        return f"how often a label is given changed by up to {100 * size:.0f} points"
    return f"{size:.0%} of the new rows would have to be answered otherwise to match the held-out rows' answers"


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1g}"
