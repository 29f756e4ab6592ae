"""Whether the evaluation's 90% intervals hold the truth in about 90% of the test splits, by simulation.

    python -m benchmarks.evaluation.coverage [--replications 200] [--resamples 200]

Every setting is a source of test rows with predictions of a fixed model. The truth is each metric on 400,000 rows
of it. Then test splits of 50, 200 and 1,000 rows are drawn again and again, evaluated as `tl evaluate` does it (with
fewer resamples), and it is counted how often each interval holds the truth. Two settings have groups of 10 rows with an
error rate of their own; the paired ones compare two models that err together. Results:
benchmarks/results/evaluation_coverage.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_core.evaluation import Interval, evaluate_predictions, paired
from tl_core.evaluation.metrics import measure
from tl_core.types import Targets, Task

RESULTS = Path(__file__).resolve().parents[1] / "results"
CONFIDENCE = 0.9
ROWS = (50, 200, 1000)
POPULATION = 400_000
GROUP = 10  # rows of a group
WORDS = "abcdef"


@dataclass(frozen=True)
class Draw:
    """Rows of a source: predictions, those of a second model where there is one, truth, groups."""

    predictions: np.ndarray
    truth: np.ndarray
    second: np.ndarray | None = None
    groups: list[str] | None = None


@dataclass(frozen=True)
class Setting:
    """A source of rows. shown: the metrics of its table's rows; `difference` is the paired one of two models.

    times: so many times the replications, where they are cheap.
    """

    name: str
    targets: Targets
    shown: tuple[str, ...]
    draw: Callable[[int, np.random.Generator], Draw]
    times: int = 1


def _targets(task: Task, classes: int = 0) -> Targets:
    return Targets(task, tuple(WORDS[:classes]))


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
    return shares


def _multiclass(shares: tuple[float, ...], signal: float) -> Callable[[int, np.random.Generator], Draw]:
    def draw(rows: int, rng: np.random.Generator) -> Draw:
        truth = rng.choice(len(shares), rows, p=shares)
        return Draw(_softmax(rng.normal(size=(rows, len(shares))) + signal * np.eye(len(shares))[truth]), truth)

    return draw


def _multilabel(rows: int, rng: np.random.Generator) -> Draw:
    truth = rng.random((rows, 4)) < np.asarray([0.5, 0.4, 0.3, 0.2])
    return Draw(1 / (1 + np.exp(-(rng.normal(size=truth.shape) + 2 * truth - 1))), truth)


def _regression(heavy: bool) -> Callable[[int, np.random.Generator], Draw]:
    def draw(rows: int, rng: np.random.Generator) -> Draw:
        truth = rng.normal(size=rows)
        noise = rng.standard_t(5, rows) / np.sqrt(5 / 3) if heavy else rng.normal(size=rows)
        return Draw(truth + 0.6 * noise, truth)

    return draw


def _grouped(rows: int, rng: np.random.Generator) -> Draw:
    """Each group has an error rate of its own."""
    group = np.arange(rows) // GROUP
    truth = rng.integers(3, size=rows)
    wrong = rng.random(rows) < rng.beta(2, 8, group[-1] + 1)[group]
    groups = [str(g) for g in group]
    return Draw(np.eye(3)[np.where(wrong, (truth + 1) % 3, truth)], truth, groups=groups)


def _two_models(grouped: bool) -> Callable[[int, np.random.Generator], Draw]:
    def draw(rows: int, rng: np.random.Generator) -> Draw:
        group = np.arange(rows) // GROUP
        truth = rng.integers(3, size=rows)
        hard = rng.normal(size=rows)  # for both models alike
        pull = 0.5 * rng.normal(size=group[-1] + 1)[group] if grouped else 0.0  # a group that suits one of the two
        said = [
            np.eye(3)[np.where(hard + 0.7 * rng.normal(size=rows) + sign * pull > limit, (truth + 1) % 3, truth)]
            for limit, sign in ((0.8, 1), (1.0, -1))
        ]
        return Draw(said[0], truth, second=said[1], groups=[str(g) for g in group] if grouped else None)

    return draw


SETTINGS = [
    Setting("values", _targets("regression"), ("r2", "mae", "rmse"), _regression(heavy=False), 2),
    Setting("values, heavy errors", _targets("regression"), ("r2", "mae", "rmse"), _regression(heavy=True), 2),
    Setting("groups of 10", _targets("multiclass", 3), ("accuracy", "macro_f1"), _grouped, 2),
    Setting("two models", _targets("multiclass", 3), ("difference",), _two_models(grouped=False), 2),
    Setting("two models, groups of 10", _targets("multiclass", 3), ("difference",), _two_models(grouped=True), 2),
    Setting("four classes", _targets("multiclass", 4),
            ("accuracy", "macro_f1", "balanced_accuracy", "auroc", "average_precision"),
            _multiclass((0.4, 0.3, 0.2, 0.1), 1.8)),
    Setting("two classes", _targets("multiclass", 2), ("accuracy", "macro_f1", "auroc", "average_precision"),
            _multiclass((0.6, 0.4), 1.2)),
    Setting("four labels", _targets("multilabel", 4),
            ("micro_f1", "macro_f1", "mean_average_precision", "auroc", "micro_precision", "micro_recall",
             "exact_match"), _multilabel),
]  # fmt: skip


def truths(setting: Setting) -> dict[str, float]:
    """The metrics on so many rows that they hardly vary."""
    drawn = setting.draw(POPULATION, np.random.default_rng(zlib.crc32(setting.name.encode())))
    ones, units = np.ones(POPULATION), np.arange(POPULATION)
    if drawn.second is not None:
        both = [measure(setting.targets, p, drawn.truth, units).watch(ones) for p in (drawn.predictions, drawn.second)]
        return {"difference": both[1] - both[0]}
    model = measure(setting.targets, drawn.predictions, drawn.truth, units)
    values = model.resampled(ones)
    return {c.metric: float(v) for c, v in zip(model.columns, values) if c.label is None}


def intervals(setting: Setting, rows: int, seed: int, resamples: int) -> dict[str, Interval]:
    """What one test split says."""
    drawn = setting.draw(rows, np.random.default_rng([seed, rows, zlib.crc32(setting.name.encode())]))
    if drawn.second is not None:
        result = paired(
            setting.targets, drawn.predictions, drawn.second, drawn.truth,
            groups=drawn.groups, confidence=CONFIDENCE, resamples=resamples, seed=seed,
        )  # fmt: skip
        return {"difference": result.difference}
    return evaluate_predictions(
        setting.targets.task, setting.targets, drawn.predictions, drawn.truth,
        groups=drawn.groups, confidence=CONFIDENCE, resamples=resamples, seed=seed,
    ).summary  # fmt: skip


def coverage(
    setting: Setting, true: dict[str, float], rows: int, replications: int, resamples: int
) -> dict[str, dict[str, float]]:
    """By metric: the truth, how often the interval held it, and its mean width."""
    found = [intervals(setting, rows, seed, resamples) for seed in range(replications)]
    return {
        metric: {
            "truth": round(true[metric], 4),
            "held": round(float(np.mean([i[metric].low <= true[metric] <= i[metric].high for i in found])), 4),
            "width": round(float(np.mean([i[metric].high - i[metric].low for i in found])), 4),
        }
        for metric in setting.shown
    }


def render(found: dict[str, dict[str, dict[str, dict[str, float]]]], replications: int, resamples: int) -> str:
    """The results as Markdown."""
    margin = 1.645 * np.sqrt(0.9 * 0.1 / replications)
    lines = [
        "# Coverage of the evaluation's intervals, by simulation",
        "",
        f"Made by `python -m benchmarks.evaluation.coverage --replications {replications} --resamples {resamples}`,",
        "whose docstring says how. Intervals are 90% ones. Cells: how often they held the truth, and their mean width.",
        f"The simulation's own 90% margin is about ±{margin:.1%} of {replications} splits.",
        "",
        f"| source | splits | metric | truth | {' | '.join(f'{rows:,} rows' for rows in ROWS)} |",
        f"|---|---|---|---|{'---|' * len(ROWS)}",
    ]
    outside = []
    splits = {setting.name: setting.times * replications for setting in SETTINGS}
    for name, sizes in found.items():
        for metric, first in sizes[str(ROWS[0])].items():
            cells = []
            for rows in ROWS:
                one = sizes[str(rows)][metric]
                cells.append(f"{one['held']:.1%}, {one['width']:.3f}")
                if not 0.85 <= one["held"] <= 0.95:
                    outside.append(f"{name}, {metric.replace('_', ' ')} at {rows:,} rows ({one['held']:.1%})")
            title = metric.replace("_", " ")
            lines.append(f"| {name} | {splits[name]} | {title} | {first['truth']:.3f} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Outside 85-95%: {'; '.join(outside) or 'none'}."]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=200)
    parser.add_argument("--resamples", type=int, default=200)
    given = parser.parse_args()
    path = RESULTS / "evaluation_coverage.json"
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for setting in SETTINGS:
        true = truths(setting)
        found[setting.name] = {
            str(rows): coverage(setting, true, rows, setting.times * given.replications, given.resamples)
            for rows in ROWS
        }
        path.write_text(json.dumps(found, indent=1) + "\n")
        path.with_suffix(".md").write_text(render(found, given.replications, given.resamples))
        print(setting.name, found[setting.name], flush=True)


if __name__ == "__main__":
    main()
