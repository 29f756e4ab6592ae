"""Whether the ranking's intervals and probabilities mean what they say, by simulation.

    python -m benchmarks.selection.coverage [--replications 200] [--only NAME ...]

Every setting is a source of rows whose truth is known: a hidden state decides the target, candidates are views of it
under more or less noise. The truth of a view is the metric on new rows, averaged over probes that are trained on
samples of the size that a fold leaves. Then samples are drawn again and again; each gets the cross-validated probe of
four candidates: two views whose noises are drawn at random, one that is as good as the first by construction, and a
decoy that tells next to nothing. It is counted how often the intervals hold the truth, how often equals are called
tied, how often the decoy is chosen though it is cheaper, and how often the candidate with a given probability of being
the best is the best. Results: benchmarks/results/selection_coverage.{json,md}; settings that are not run keep theirs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tl_core.linear_path import LOOSE, Linear, LinearProblem, moments, rotate
from tl_core.selection.crossval import STRENGTHS, cross_validated_outcomes
from tl_core.selection.outcomes import Outcomes
from tl_core.selection.standing import choose, hopeless, standings
from tl_core.types import Task

RESULTS = Path(__file__).resolve().parents[1] / "results"
CONFIDENCE = 0.9
FOLDS = 5
DRAWS = 1000
NOISES = (1.0, 1.1, 1.25, 1.5)  # of the views: from next to no difference to a plain one
DECOY = 5.0  # the same of a view that tells next to nothing, as random weights do
TEST_ROWS = 1000
TRUTHS = 40  # probes behind each truth
BINS = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)  # of the reliability table


@dataclass(frozen=True)
class Setting:
    """A source of rows. noise: of the views, times the numbers of NOISES; hidden: width of the hidden state.

    heavy: Student's t with five degrees of freedom instead of normal noise, and a tenth of the classes drawn at random.
    """

    name: str
    task: Task
    rows: int
    width: int
    outputs: int
    noise: float
    heavy: bool = False
    hidden: int = 8

    @cached_property
    def _fixed(self) -> tuple[np.ndarray, np.ndarray]:
        """What never changes: centres or directions [C, H], and how the views mix the hidden state [H, D]."""
        rng = np.random.default_rng([self.outputs, self.hidden, self.width])
        centres = rng.standard_normal((self.outputs, self.hidden)) * 1.5
        return centres, rng.standard_normal((self.hidden, self.width))

    def draw(self, rows: int, noises: Sequence[float], rng: np.random.Generator) -> tuple[list[Tensor], Tensor]:
        """New rows: a view [N, D] for each noise, and the targets."""
        centres, mix = self._fixed
        state = rng.standard_normal((rows, self.hidden))
        if self.task == "multiclass":
            classes = rng.permutation(np.arange(rows) % self.outputs)  # stratified, as tl's samples are
            state += centres[classes]
            wrong = rng.random(rows) < (0.1 if self.heavy else 0.0)
            targets = torch.from_numpy(np.where(wrong, rng.integers(self.outputs, size=rows), classes))
        else:
            scores = state @ centres.T / np.sqrt(self.hidden) + 0.5 * self._noise(rng, (rows, self.outputs))
            found = scores[:, 0] if self.task == "regression" else (scores > 1.0).astype(np.float64)
            targets = torch.from_numpy(found.astype(np.float32))
        spread = self.noise * np.sqrt(self.width)
        views = [state @ mix + spread * noise * self._noise(rng, (rows, self.width)) for noise in noises]
        return [torch.from_numpy(view.astype(np.float32)) for view in views], targets

    def _noise(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        return rng.standard_t(5, shape) / np.sqrt(5 / 3) if self.heavy else rng.standard_normal(shape)

    def truth(self, noise: float, seed: int = 1) -> float:
        """The metric on new rows of probes that learnt from as much as a fold leaves; new rows choose the strength."""
        rng = np.random.default_rng([seed, self.rows])
        learnt = self.rows * (FOLDS - 1) // FOLDS
        train, check, test = slice(learnt), slice(learnt, 2 * learnt), slice(2 * learnt, None)
        found = []
        for _ in range(TRUTHS):
            # each part is stratified, as samples and folds are
            drawn = [self.draw(rows, [noise], rng) for rows in (learnt, learnt, TEST_ROWS)]
            view, targets = torch.cat([views[0] for views, _ in drawn]), torch.cat([y for _, y in drawn])
            mean, scale = moments(view[train])
            axes = rotate(view[train], mean, scale)
            rows = ((view - mean) / scale) @ axes.basis.float()
            problem = LinearProblem(rows[train], axes.energy, targets[train], self.task, self.outputs)
            model: Linear | None = None
            reached = []
            for strength in STRENGTHS:
                model = problem.solve(strength, model, LOOSE)
                logits = (rows.double() @ model.weight.T + model.bias).numpy()
                said = {"multiclass": logits, "multilabel": logits > 0, "regression": logits[:, 0]}[self.task]
                outcomes = [Outcomes.of(self.task, said[part], targets[part].numpy()) for part in (check, test)]
                reached.append([one.metric() for one in outcomes])
            found.append(max(reached, key=lambda pair: pair[0])[1])
        return float(np.mean(found))


SETTINGS = [
    Setting("two classes, few rows", "multiclass", 100, 16, 2, 2.0),
    Setting("five classes", "multiclass", 200, 64, 5, 0.8),
    Setting("five classes, heavy", "multiclass", 150, 128, 5, 0.5, heavy=True),
    Setting("ten classes, heavy", "multiclass", 300, 32, 10, 0.4, heavy=True),
    Setting("twenty classes, wide", "multiclass", 400, 256, 20, 0.3),
    Setting("two classes, wide", "multiclass", 100, 256, 2, 1.2),
    Setting("six labels", "multilabel", 200, 32, 6, 0.4),
    Setting("ten labels, heavy", "multilabel", 400, 64, 10, 0.4, heavy=True),
    Setting("regression", "regression", 200, 32, 1, 0.4),
    Setting("regression, heavy", "regression", 200, 100, 1, 0.3, heavy=True),
    Setting("ten classes, many rows", "multiclass", 1000, 64, 10, 0.5),
]


@dataclass
class Counts:
    """What the replications of a setting said, as lists of single events.

    chances: a probability of being better than one other, and whether that came true.
    """

    values: list[float] = field(default_factory=list)
    inside: list[bool] = field(default_factory=list)
    gap_inside: list[bool] = field(default_factory=list)
    tied: list[bool] = field(default_factory=list)
    decoy_chosen: list[bool] = field(default_factory=list)
    decoy_tied: list[bool] = field(default_factory=list)
    best_lost: list[bool] = field(default_factory=list)
    chances: list[tuple[float, bool]] = field(default_factory=list)


def replicate(setting: Setting, truths: dict[float, float], seed: int, counts: Counts) -> None:
    """One sample: what the standings of two views, of equals, and of a view and a decoy say, against the truth."""
    rng = np.random.default_rng([seed, 2])
    first, second = rng.choice(len(truths), 2, replace=False)
    noises = [list(truths)[first], list(truths)[first], list(truths)[second]]
    views, targets = setting.draw(setting.rows, [*noises, DECOY], rng)
    a, twin, b, decoy = (
        cross_validated_outcomes(view, targets, setting.task, setting.outputs, FOLDS, seed) for view in views
    )
    true = {"a": truths[noises[0]], "b": truths[noises[2]]}
    found = standings({"a": [a], "b": [b]}, confidence=CONFIDENCE, seed=seed, draws=DRAWS)
    for one in found:
        counts.values.append(one.value)
        counts.inside.append(one.low <= true[one.name] <= one.high)
        counts.chances.append((one.p_best, true[one.name] == max(true.values())))
    leader, other = found
    counts.gap_inside.append(other.gap_low <= true[leader.name] - true[other.name] <= other.gap_high)
    counts.best_lost.append(other.name in hopeless(found) and true[other.name] > true[leader.name])
    equals = standings({"a": [a], "twin": [twin]}, confidence=CONFIDENCE, seed=seed, draws=DRAWS)
    counts.tied.append(equals[1].tied)
    pair = standings({"a": [a], "decoy": [decoy]}, confidence=CONFIDENCE, seed=seed, draws=DRAWS)
    taken = choose(pair, prefer="cost", tolerance=0.01, flops={"a": 2, "decoy": 1}, params={"a": 2, "decoy": 1})
    counts.decoy_chosen.append(taken == "decoy")
    counts.decoy_tied.append(pair[1].tied)


def summary(counts: Counts, truths: dict[float, float]) -> dict[str, Any]:
    """Shares of the events of one setting, and its reliability events."""
    shares = {
        key: float(np.mean(getattr(counts, key)))
        for key in ("inside", "gap_inside", "tied", "decoy_chosen", "decoy_tied", "best_lost")
    }
    return {"replications": len(counts.tied), "truths": list(truths.values()), **shares, "chances": counts.chances}


def render(found: dict[str, dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "# Coverage of the ranking's intervals, by simulation",
        "",
        "Made by `python -m benchmarks.selection.coverage`, whose docstring says how. All intervals are 90% ones.",
        "Estimated is the metric that a probe trained like this reaches on new rows of the same source, on average",
        "over training samples of the size that a fold leaves. `±` is the simulation's own 90% margin.",
        "",
        "| setting | task | rows x features | outputs | truth | runs | interval holds the truth | interval of the gap "
        "| equals called tied | decoy chosen | best one let go |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for setting in SETTINGS:
        if (one := found.get(setting.name)) is None:
            continue
        runs = one["replications"]
        cells = [
            f"{one['truths'][-1]:.2f} to {one['truths'][0]:.2f}",
            str(runs),
            _share(one["inside"], runs),  # two intervals a run, but of the same rows
            _share(one["gap_inside"], runs),
            _share(one["tied"], runs),
            f"{one['decoy_chosen']:.1%}",
            f"{one['best_lost']:.1%}",
        ]
        shape = f"{setting.rows} x {setting.width}"
        lines.append(f"| {setting.name} | {setting.task} | {shape} | {setting.outputs} | {' | '.join(cells)} |")
    out = [f"{name} ({key.replace('_', ' of the ')}: {one[key]:.0%})" for name, one in found.items()
           for key in ("inside", "gap_inside") if not 0.85 <= one[key] <= 0.95]  # fmt: skip
    lines += ["", f"Outside 85-95%: {'; '.join(out) if out else 'none'}.", "", *_reliability(found)]
    return "\n".join(lines) + "\n"


def _share(share: float, runs: int) -> str:
    return f"{share:.0%} ± {1.645 * np.sqrt(max(share * (1 - share), 0.25 / runs) / runs):.0%}"


def _reliability(found: dict[str, dict[str, Any]]) -> list[str]:
    """How often the candidates with such a probability of being the best of two were it, over all settings."""
    events = np.array([event for one in found.values() for event in one["chances"]], np.float64)
    lines = ["## Probability of being the best", "", "| said | mean | came true | cases |", "|---|---|---|---|"]
    for low, high in pairwise(BINS):
        mine = events[(events[:, 0] >= low) & ((events[:, 0] < high) | (high == BINS[-1]))]
        if len(mine):
            said, true = mine.mean(axis=0)
            lines.append(f"| {low:.0%} to {high:.0%} | {said:.1%} | {_share(true, len(mine))} | {len(mine)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=200)
    parser.add_argument("--only", nargs="*", choices=[s.name for s in SETTINGS], default=[s.name for s in SETTINGS])
    arguments = parser.parse_args()
    path = RESULTS / "selection_coverage.json"
    found: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}
    for setting in (s for s in SETTINGS if s.name in arguments.only):
        truths = {noise: setting.truth(noise) for noise in NOISES}
        counts = Counts()
        for seed in range(arguments.replications):
            replicate(setting, truths, seed, counts)
        found[setting.name] = summary(counts, truths)
        path.write_text(json.dumps(found, sort_keys=True) + "\n")
        path.with_suffix(".md").write_text(render(found))
        shares = {key: value for key, value in found[setting.name].items() if key != "chances"}
        print(f"{setting.name}: {shares}", flush=True)


if __name__ == "__main__":
    main()
