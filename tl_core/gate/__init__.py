"""The gate of retraining: whether a challenger is better than the champion on rows that neither has learned from."""

from __future__ import annotations

from tl_core.gate.changes import Change
from tl_core.gate.contest import Asked, Candidate, placed
from tl_core.gate.decision import Decision, Rule, SetUse, Stood
from tl_core.gate.judge import judge
from tl_core.gate.test_set import Match, freeze, match, renewed
from tl_core.manifest import TestSet

__all__ = [
    "Asked",
    "Candidate",
    "Change",
    "Decision",
    "Match",
    "Rule",
    "SetUse",
    "Stood",
    "TestSet",
    "freeze",
    "judge",
    "match",
    "placed",
    "renewed",
]
