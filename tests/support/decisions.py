"""Facts of made-up decisions, as a retrain hands them to the page."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import reports

from tl_core.config import GateConfig
from tl_core.evaluation import Interval
from tl_core.gate import Asked, Candidate, Change, Decision, Match, Rule, SetUse, Stood, TestSet, judge
from tl_core.manifest import Changes
from tl_core.report.contest import Contest, Contested, Cost, NewClass, Side
from tl_core.report.decision_page import DecisionFacts
from tl_core.report.difference import Difference
from tl_core.types import Targets, Task

CLASSES = tuple(f"sign {name}" for name in "abcdefghijklmnopqrst")
RESAMPLES = 200
SILENCE = "data:audio/wav;base64,UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA="


def fragment(kind: str, row: int) -> str:
    if kind == "image":
        return f'<img alt="" width="192" src="{reports.picture(row % 30)}">'
    if kind == "audio":
        return f'<audio controls src="{SILENCE}"></audio>'
    return f'<p class="text">where is parcel {row}, it should have come on monday</p>'


def decision(gain: float, rows: int = 600, *, task: Task = "multiclass", seed: int = 0, **settings: Any) -> Decision:
    """What the gate says of a challenger that is better by about so much, on rows of which a tenth are new."""
    rng = np.random.default_rng(seed)
    targets = Targets(task, () if task == "regression" else CLASSES)
    truth: np.ndarray
    if task == "regression":
        truth = rng.gamma(4, 40, rows)
        said = [truth + rng.normal(0, 25 * (1 - one), rows) for one in (0.0, gain)]
    elif task == "multilabel":
        truth = (rng.random((rows, len(CLASSES))) < 0.2).astype(np.float32)
        noise = rng.normal(size=truth.shape)
        said = [1 / (1 + np.exp(-(signal * (truth - 0.5) + noise))) for signal in (3.0, 3.0 + 10 * gain)]
    else:
        truth = rng.integers(len(CLASSES), size=rows)
        hard = rng.random(rows)
        said = []
        for errors in (0.2, 0.2 - gain):
            wrong = hard + 0.1 * rng.random(rows) < errors + 0.05
            found = np.full((rows, len(CLASSES)), 0.01)
            found[np.arange(rows), np.where(wrong, (truth + 1) % len(CLASSES), truth)] = 0.81
            said.append(found)
    nobody, places = np.zeros(rows, bool), np.arange(rows)
    asked = Asked(
        targets, places, truth, None, {"camera": ["old" if i % 3 else "new" for i in range(rows)]},
        np.ones(rows, bool), places >= 0.9 * rows, nobody, nobody, Match(places, *[places[:0]] * 2, (), (), ()),
    )  # fmt: skip
    models = [Candidate(name, name, targets.classes, one) for name, one in zip(("v2", "the new model"), said)]
    return judge(
        asked, models[1], models[0], TestSet(3, task, targets.classes, ()), GateConfig(**settings), uses=6,
        resamples=RESAMPLES,
    )  # fmt: skip


def side(count: int, kind: str, *, won: bool, value: bool = False) -> Side:
    def row(i: int) -> Contested:
        label, other = (f"{100 + i}.2", f"{80 + i}.4") if value else (CLASSES[i % 20], CLASSES[(i + 3) % 20])
        answers = (other, label) if won else (label, other)
        sure = (None, None) if value else (0.93 - 0.01 * i, 0.61)
        return Contested(
            f"{kind}/sample_{i:03d}", label, *answers, *sure, i % 4 == 0, fragment(kind, i) if i < 20 else None
        )

    return Side(count, tuple(row(i) for i in range(min(count, 24))))


def demo(kind: str = "image", gain: float = 0.06, **changes: Any) -> DecisionFacts:
    """A decision on pictures, texts or sounds, with everything that a page can show."""
    found = decision(gain, task=changes.pop("task", "multiclass"), **changes.pop("settings", {}))
    value = found.metric == "r2"
    contest = Contest(
        decision=found,
        modality=kind,
        task={"accuracy": "multiclass", "micro_f1": "multilabel", "r2": "regression"}[found.metric],
        lost=side(9, kind, won=False, value=value),
        won=side(45, kind, won=True, value=value),
        new_classes=() if value else (NewClass("sign u", 12, 0.831), NewClass("sign v", 0, None)),
        data=Changes(
            312, 4, 1, 7, 2400, {"added": ["signs/u/001.png", "signs/u/002.png"], "relabelled": ["signs/a/4.png"]}
        ),
        champion=Cost(12.41, 46.8),
        challenger=Cost(11.9, 46.8),
        max_uses=50,
    )
    facts = DecisionFacts(
        title="Signs",
        version="v3",
        promoted=found.promote,
        contest=contest,
        incoming="312 new, 4 gone",
        differences={
            "Data in numbers": [Difference(f"train rows of {name}", "80", "92") for name in CLASSES],
            "Configuration": [Difference("tune.minutes", "10", "20")],
            "Backbone, strategy and libraries": [],
        },
        code=("src/train.py",),
        report="report.html",
    )
    return dataclasses.replace(facts, **changes)


def first_model() -> DecisionFacts:
    """A project's first decision: there is no champion."""
    facts = demo()
    rule = Rule(
        "floors", "pass", "Surely above the commonest answer and not shown to be below a probe on plain features."
    )
    found = facts.contest.decision
    alone = dataclasses.replace(
        found, champion=None, rules=(rule,), promote=True, sentence=f"Promoted: the new model. {rule.text}",
        further_rows=None, warnings=(), test_set=dataclasses.replace(found.test_set, uses=1, newest=0),
    )  # fmt: skip
    contest = dataclasses.replace(
        facts.contest, decision=alone, lost=Side(0), won=Side(0), new_classes=(), data=None, champion=None
    )
    return dataclasses.replace(facts, version="v1", promoted=True, contest=contest, differences=None, code=None)


def same_model() -> DecisionFacts:
    """The challenger is the champion byte by byte: no rule was asked."""
    facts = demo()
    same = dataclasses.replace(
        facts.contest.decision, rules=(), promote=False, further_rows=None,
        sentence="Refused: the new model is the same model as the champion v2, byte by byte.",
    )  # fmt: skip
    contest = dataclasses.replace(facts.contest, decision=same, lost=Side(0), won=Side(0), new_classes=())
    return dataclasses.replace(facts, promoted=False, contest=contest)


def hostile(evil: str) -> DecisionFacts:
    """The same text in every field that takes one; fragments alone are trusted."""
    interval = Interval.of(-0.2, -0.3, 0.1)
    parts = tuple(Change(name, 9, 0.9, 0.4, interval, 0.01, 1.0) for name in (evil, "</svg>", "{{ 7 * 7 }}"))
    rules = tuple(
        Rule(name, "fail", evil, -0.2, interval, -0.1, None, parts) for name in ("metric", "newest", "classes")
    )
    found = Decision(
        False, evil, (*rules, Rule(evil, "can't tell", evil)), None, "accuracy", 0.95, Stood(evil, evil, interval),
        Stood(evil, evil, interval), SetUse(1, evil, 9, 9, 1, 1, 1, 1, 1, 99), (evil, evil),
    )  # fmt: skip
    row = Contested(evil, evil, evil, evil, 0.4, 0.5, True, "<p>fine</p>")
    contest = Contest(
        found, evil, "multiclass", Side(1, (row,)), Side(1, (row,)), (NewClass(evil, 1, 0.5),),
        Changes(1, 1, 1, 1, 1, {evil: [evil]}), Cost(1.0, 1.0), Cost(None, 1.0), 5,
    )  # fmt: skip
    return DecisionFacts(
        evil, evil, False, contest, evil, evil, {evil: [Difference(evil, evil, evil)]}, (evil,), "report.html"
    )


DEMOS = {
    "promoted": lambda: demo(settings={"calibration_rise": 0.5}),
    "refused": lambda: demo("audio", -0.04),
    "can't tell": lambda: demo("text", 0.01),
    "strict": lambda: demo("text", 0.06, settings={"strict": True, "min_gain": 0.02}),
    "multilabel": lambda: demo("image", 0.05, task="multilabel"),
    "values": lambda: demo("text", 0.2, task="regression"),
    "too late": lambda: demo(
        settings={"calibration_rise": 0.5},
        promoted=False,
        note="Not promoted all the same: v2 is not the champion any more.",
    ),
    "first model": first_model,
    "same model": same_model,
    "nothing at hand": lambda: demo(differences=None, code=None, report=None),
}
