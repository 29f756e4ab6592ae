"""How often the gate promotes a challenger that is no better, and one that is, by simulation.

    python -m benchmarks.retraining.gate_rates [--replications 1000] [--only NAME ...]
    python -m benchmarks.retraining.gate_rates --render

Every retrain draws a test set and two models. A row is as hard for one as for the other, and each errs where the row's
hardness and luck of its own exceed its threshold: their errors are correlated as those of two trainings on nearly the
same data are. Equal models have one threshold, so that they are equally good on the source of the rows; the better one
is right on 3 points more of it. In grouped settings each group of 10 rows suits one of the two. The newest tenth of the
rows are newer than the champion, a column has four values, and the gate has the product's own settings, resamples
included; only what can't pass whatever they say (no gain, or McNemar's p is too large) is not resampled. Counted:
promotions by the metric rule alone, and by all rules, which can only refuse more; and in the first 1,000 retrains what
the guards say of each. Results: benchmarks/results/retraining_gate_rates.{json,md}; settings that are not run keep
theirs, and --render only writes the tables. About a quarter of an hour of a core.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from tl_core.config import GateConfig
from tl_core.evaluation.paired import coin_p
from tl_core.gate import Asked, Candidate, Match, TestSet, judge
from tl_core.gate.guards import Answers, Draws
from tl_core.gate.judge import metric_rule
from tl_core.intervals import wilson
from tl_core.types import Targets

RESULTS = Path(__file__).resolve().parents[1] / "results"
RESAMPLES = 1000
GUARDED = 1000  # retrains whose guards are counted whatever the metric rule says
GUARDS = ("newest", "classes", "groups", "calibration")  # those that have rows in these settings
GROUP = 10  # rows of a group
CLASSES = Targets("multiclass", tuple("abcde"))
LABELS = Targets("multilabel", tuple("abcd"))
VALUES = Targets("regression")
ALLOWED, LIMIT = 0.05, 0.07  # what 1 - gate.confidence states, and what the upper limit of the rate may reach
POWER = 0.8


@dataclass(frozen=True)
class Drawn:
    """Test rows with what champion (first) and challenger (second) say of them."""

    targets: Targets
    first: np.ndarray
    second: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class Setting:
    """A kind of retrain. gain: what the challenger is better by; full: judged by all rules as well."""

    name: str
    rows: int
    draw: Callable[[Setting, np.random.Generator], Drawn]
    grouped: bool = False
    gain: float = 0.0
    full: bool = True

    @property
    def groups(self) -> tuple[str, ...] | None:
        return tuple(str(row // GROUP) for row in range(self.rows)) if self.grouped else None


def classes(setting: Setting, rng: np.random.Generator) -> Drawn:
    """One of five classes; champion and challenger are wrong on 15% of the source, or a better challenger on less."""
    truth = rng.integers(CLASSES.outputs, size=setting.rows)
    hard = rng.normal(size=setting.rows)
    group = np.arange(setting.rows) // GROUP
    pull = 0.3 * rng.normal(size=group[-1] + 1)[group] if setting.grouped else np.zeros(setting.rows)
    luck = 0.37

    def said(errors: float, sign: int) -> np.ndarray:
        spread = np.sqrt(1 + luck**2 + (0.09 if setting.grouped else 0.0))
        score = (hard + luck * rng.normal(size=setting.rows) + sign * pull) / spread
        beyond = score - NormalDist().inv_cdf(1 - errors)
        answer = np.where(beyond > 0, (truth + 1) % CLASSES.outputs, truth)
        sure = 1 / (1 + np.exp(-0.5 - 2 * np.abs(beyond)))
        found = np.repeat(((1 - sure) / (CLASSES.outputs - 1))[:, None], CLASSES.outputs, axis=1)
        found[np.arange(setting.rows), answer] = sure
        return found

    return Drawn(CLASSES, said(0.15, 1), said(0.15 - setting.gain, -1), truth)


def labels(setting: Setting, rng: np.random.Generator) -> Drawn:
    """Four labels of different frequency."""
    shape = (setting.rows, LABELS.outputs)
    truth = rng.random(shape) < np.asarray([0.5, 0.4, 0.3, 0.1])
    hard = rng.normal(size=shape)
    first, second = (1 / (1 + np.exp(-(4 * truth - 2 + hard + 0.5 * rng.normal(size=shape)))) for _ in range(2))
    return Drawn(LABELS, first, second, truth)


def values(setting: Setting, rng: np.random.Generator) -> Drawn:
    """Numbers whose errors have heavy tails."""
    truth = rng.normal(size=setting.rows)
    hard = rng.standard_t(5, setting.rows)
    first, second = (truth + 0.4 * hard + 0.2 * rng.standard_t(5, setting.rows) for _ in range(2))
    return Drawn(VALUES, first, second, truth)


SETTINGS = [
    Setting("equal, 1,000 rows", 1000, classes),
    Setting("equal, 200 rows", 200, classes),
    Setting("equal, 1,000 rows in groups of 10", 1000, classes, grouped=True),
    Setting("equal, 200 rows in groups of 10", 200, classes, grouped=True),
    Setting("equal, 200 rows, four labels", 200, labels, full=False),
    Setting("equal, 200 rows, numbers", 200, values, full=False),
    Setting("3 points better, 1,000 rows", 1000, classes, gain=0.03, full=False),
]


def retrain(setting: Setting, seed: int) -> dict[str, Any]:
    """What became of one challenger."""
    rng = np.random.default_rng([seed, zlib.crc32(setting.name.encode())])
    drawn = setting.draw(setting, rng)
    rows = np.arange(setting.rows)
    settings = GateConfig()
    columns = {"column": [str(row % 4) for row in rows.tolist()]}
    answers = Answers(drawn.targets, drawn.first, drawn.second, drawn.truth, setting.groups, columns)
    passes = False
    if may_pass(answers):
        rule, _ = metric_rule(answers, "champion", "challenger", Draws(settings, RESAMPLES, seed))
        passes = rule.state == "pass"
    found: dict[str, Any] = {
        "metric": passes,
        "differ": None if drawn.first.ndim == 1 else float(_decided_otherwise(drawn).mean()),
        "all": False if setting.full else None,
        "guarded": setting.full and seed < GUARDED,
    }
    if found["guarded"] or (setting.full and found["metric"]):
        nothing = rows[:0]
        asked = Asked(
            drawn.targets, rows, drawn.truth, setting.groups, columns,
            frozen=np.ones(len(rows), bool), newest=rows >= 0.9 * len(rows), former=np.zeros(len(rows), bool),
            learned=np.zeros(len(rows), bool), set_match=Match(rows, nothing, nothing, (), (), ()),
        )  # fmt: skip
        both = [
            Candidate(name, name, drawn.targets.classes, said)
            for name, said in (("champion", drawn.first), ("challenger", drawn.second))
        ]
        decision = judge(asked, both[1], both[0], SET, settings, resamples=RESAMPLES, seed=seed)
        found["all"] = decision.promote
        found["failed"] = [one.name for one in decision.rules if one.state == "fail"]
    return found


def may_pass(answers: Answers) -> bool:
    """False where the metric rule can't pass, whatever the resamples say: no gain, or McNemar's p is too large."""
    rated = answers.rated()
    if rated is None or rated[1].metric() <= rated[0].metric():
        return False
    if answers.targets.task != "multiclass" or answers.groups is not None:
        return True
    before, after = (one.gained > 0 for one in rated)
    p = coin_p(int((before & ~after).sum()), int((after & ~before).sum()), "one")
    return p <= 1 - GateConfig().confidence


def _decided_otherwise(drawn: Drawn) -> np.ndarray:
    if drawn.targets.task == "multiclass":
        found: np.ndarray = drawn.first.argmax(axis=1) != drawn.second.argmax(axis=1)
        return found
    labels: np.ndarray = ((drawn.first > 0.5) != (drawn.second > 0.5)).any(axis=1)
    return labels


SET = TestSet(1, "multiclass", CLASSES.classes, ())


def summary(setting: Setting, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts of a setting's retrains."""
    differ = [one["differ"] for one in found if one["differ"] is not None]
    guards = [name for one in found if one["guarded"] for name in one["failed"] if name != "metric"]
    return {
        "retrains": len(found),
        "gain": setting.gain,
        "metric": sum(one["metric"] for one in found),
        "all": sum(one["all"] for one in found) if setting.full else None,
        "differ": round(float(np.mean(differ)), 4) if differ else None,
        "guarded": sum(one["guarded"] for one in found),
        "guards": {name: guards.count(name) for name in sorted(set(guards))},
    }


def render(found: dict[str, dict[str, Any]]) -> str:
    """The tables as Markdown."""
    lines = [
        "# How often the gate promotes",
        "",
        "Simulated retrains (`python -m benchmarks.retraining.gate_rates`), judged with the product's own settings: "
        f"`gate.confidence` {GateConfig().confidence:g}, so a challenger that is no better may pass in {ALLOWED:.0%} "
        "of cases. In brackets the 95% interval of the rate (Wilson); its upper end may reach "
        f"{LIMIT:.0%} for equal models.",
        "",
        "| retrains | decided differently | promoted by the metric rule alone | by all rules | within |",
        "|---|---|---|---|---|",
    ]
    for setting in SETTINGS:
        one = found.get(setting.name)
        if one is None:
            continue
        n, differ = one["retrains"], one["differ"]
        rates = [count for count in (one["metric"], one["all"]) if count is not None]
        if one["gain"]:
            holds = one["metric"] / n >= POWER
        else:
            holds = all(wilson(count / n, n, 0.95)[1] <= LIMIT for count in rates)
        cells = [
            f"{n:,} x {setting.name}",
            "" if differ is None else f"{differ:.1%}",
            _rate(one["metric"], n),
            "" if one["all"] is None else _rate(one["all"], n),
            "yes" if holds else "no",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Within: of equal models the upper end is at most {LIMIT:.0%}; the better one is promoted in {POWER:.0%} or "
        "more.",
        "",
        "How often a guard refused a challenger that is equal in all respects. The guards `former` and `known` have no "
        "rows here:",
        "",
        f"| retrains | {' | '.join(GUARDS)} |",
        "|---" * (1 + len(GUARDS)) + "|",
    ]
    for setting in (s for s in SETTINGS if s.full and s.name in found):
        one = found[setting.name]
        n = one["guarded"]
        cells = [_rate(one["guards"].get(name, 0), n) for name in GUARDS]
        lines.append(f"| {n:,} x {setting.name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _rate(count: int, n: int) -> str:
    low, high = wilson(count / n, n, 0.95)
    return f"{count / n:.1%} ({low:.1%} to {high:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=1000)
    parser.add_argument("--only", nargs="*", choices=[s.name for s in SETTINGS], default=[s.name for s in SETTINGS])
    parser.add_argument("--out", type=Path, default=RESULTS / "retraining_gate_rates.json")
    parser.add_argument("--render", action="store_true", help="only write the tables of what was run")
    arguments = parser.parse_args()
    path: Path = arguments.out
    if arguments.render:
        path.with_suffix(".md").write_text(render(json.loads(path.read_text())))
        return
    for setting in (s for s in SETTINGS if s.name in arguments.only):
        one = summary(setting, [retrain(setting, seed) for seed in range(arguments.replications)])
        found = json.loads(path.read_text()) if path.is_file() else {}  # another process may have added to it
        found[setting.name] = one
        path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        path.with_suffix(".md").write_text(render(found))
        print(f"{setting.name}: {one}", flush=True)


if __name__ == "__main__":
    main()
