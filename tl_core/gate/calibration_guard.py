"""The gate's guard of calibration: the new model's probabilities must not mean less than the champion's do."""

from __future__ import annotations

import numpy as np

from tl_core.diagnostics.calibration import BIN_ROWS, error_draws, gap_tables
from tl_core.evaluation.bootstrap import Floats, count_of, percentile_interval, units_of, ways_to_resample
from tl_core.gate.changes import Both, Scores
from tl_core.gate.decision import Rule, State
from tl_core.gate.further import advice, further_rows
from tl_core.gate.guards import Answers, Draws, one_sided_ends


class CalibrationScores(Scores):
    """Minus the calibration error, in bins that both models share.

    What chance adds to it is not taken off: it is the same for two models whose answers are traded.
    """

    names = ("calibration",)

    def __init__(self, answers: Answers) -> None:
        self._tables = gap_tables(answers.first, answers.second, answers.truth, answers.targets)
        self.rows = np.array([len(answers)])

    def sums(self, weights: Floats) -> Both:
        """Both models' gaps by bin and, last, the rows: [B, bins + 1]."""
        rows = weights.sum(axis=1, keepdims=True)
        first, second = (np.concatenate([weights @ table, rows], axis=1) for table in self._tables)
        return first, second

    def score(self, sums: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = -np.abs(sums[:, :-1]).sum(axis=1, keepdims=True) / sums[:, -1:]
        return found


def calibration_rule(answers: Answers, draws: Draws) -> Rule:
    """Whether the calibration error has risen."""
    settings, limit = draws.settings, draws.settings.calibration_rise
    if answers.targets.task == "regression":
        return Rule("calibration", "skipped", "A number has no probability.", limit=limit)
    if len(answers) < BIN_ROWS:
        return Rule("calibration", "skipped", f"Fewer than {BIN_ROWS} test rows say nothing of it.", limit=limit)
    ways = ways_to_resample(units_of(len(answers), answers.groups))
    (before, drawn), (after, redrawn) = (
        error_draws(said, answers.truth, answers.targets, ways, resamples=draws.resamples, seed=draws.seed)
        for said in (answers.first, answers.second)
    )
    rise = percentile_interval(
        after - before, redrawn - drawn, 2 * settings.confidence - 1, None, units=[count_of(way) for way in ways]
    )
    state: State = "pass"
    p = None
    if rise.value > limit:
        p = draws.changes(CalibrationScores(answers), answers)[0].worse
    if p is not None and p <= 1 - settings.confidence:
        state = "fail"
    elif settings.strict and rise.high > limit:
        state = "can't tell"
    more = further_rows(rise, limit, len(answers), settings.confidence) if state == "can't tell" else None
    text = f"Calibration error {before:.3f} before and {after:.3f} now ({rise.value:+.3f}; {one_sided_ends(rise)})"
    if state == "fail":
        text += f": more than the {limit:g} that is let pass, and more than chance explains (p {p:.2g})."
    elif state == "can't tell":
        text += f": a rise beyond the {limit:g} that is let pass can't be ruled out."
    else:
        text += f"; a rise of up to {rise.high:.3f} can't be ruled out." if rise.high > 0 else "; surely no rise."
    return Rule("calibration", state, text + advice(more), rise.value, rise, limit, more)
