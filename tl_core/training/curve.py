"""The learning curve of the probe, and whether more rows would help.

Rows are dealt into folds; for each fold held out, the probe learns from growing beginnings of the other rows, in a
stratified order of chance, and says what it thinks of the fold's rows. So each held-out row is judged at every share by
probes that differ in nothing but their rows, and the curve's points are compared on the same rows, in pairs.

What doubling the rows brings is told from what the last doubling brought (half of the rows against all), times the
share that is left of a gain from one doubling to the next: under a power law, error = a + b rows^-c, it is 2^-c, and
0.7 fits c = 0.5. A power law fitted to the six points forecast real doublings about as well on average, but by its
third number, which hangs on their noise, it missed most of some gains; here that share is drawn from what it can be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tl_core.linear_path import Linear, LinearProblem, moments, rotate
from tl_core.selection.crossval import deal
from tl_core.selection.outcomes import Floats, Outcomes
from tl_core.selection.sample import strata
from tl_core.types import Task
from tl_core.watch import DEFAULT, metric_title

SHARES = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0)
FOLDS = 5
REPEATED_ROWS = 1000  # with fewer, rows are dealt again until they were held out about as often,
MOST_REPEATS = 3  # but no more often than this
MOST_ROWS = 10_000  # of larger sets a stratified sample
BUDGET = 2e12  # multiplications: some 10 s of one core
PASSES = 12  # over the rows, for one strength at one share
NEIGHBOURS = 3.0  # how far the strengths tried at each share lie apart
LEFT = (0.3, 0.7, 1.2)  # share of a gain that the next doubling brings: least, likeliest, most (before a curve bends)
WORTH = (
    0.5  # of a row, as in standing.py, where it is 0.7; halves of the rows differ more from draw to draw than all do
)
MATTERS = 0.01  # of the metric: what doubling the rows has to bring to be called help
DRAWS = 2000
BLOCK = 100


def learning_curve(
    x: Tensor,
    y: Tensor,
    task: Task,
    outputs: int,
    *,
    strength: float,
    groups: Sequence[str] | None = None,
    confidence: float = 0.9,
    seed: int = 0,
) -> dict[str, Any]:
    """The `curve` block of tune.json: `points`, `gain` with `gain_low` and `gain_high`, `verdict` and `text`.

    x: float32 [N, D], all rows that may be learnt from (training and validation); y: int64 [N], multi-hot [N, C] or
    float [N]; strength: of the probe that was chosen, at each share the best of it, a third and the threefold;
    groups: rows of one group are held out, learnt from and drawn together. The metric is the task's usual one. points:
    share of the rows, how many the probe learnt from, the metric on held-out rows with its interval, which counts
    both the rows and the draw of what was learnt from. gain: what twice the rows are expected to bring. Costs some 10 s
    of one core at most: larger sets are sampled, and fewer folds held out, by what they cost and never by the clock.
    Raises ValueError on fewer than four rows and on features that are not finite.
    """
    total = len(y)
    if total < 4:
        raise ValueError(f"a learning curve needs at least four rows; got {total}")
    if total > MOST_ROWS:
        kept = np.flatnonzero(deal(y.cpu().numpy(), task, math.ceil(total / MOST_ROWS), seed, groups) == 0)
        x, y = x[torch.from_numpy(kept)], y[torch.from_numpy(kept)]
        groups = None if groups is None else [groups[row] for row in kept.tolist()]
    if task == "regression":  # neither R2 nor the best ridge model depends on the unit
        values = y.double()
        spread = float(values.std(correction=0))
        y = (values - values.mean()) / (spread if spread > 0 else 1.0)
    # standardising and turning see no targets, so that all probes can share them
    rotated = rotate(x, *moments(x))
    found = _judged(_Rows(rotated.rows, rotated.energy, y, task, outputs), strength, groups, seed)
    value, drawn = _drawn(found, seed)
    half, whole = SHARES.index(0.5), len(SHARES) - 1
    doublings = 1 + math.log2(total / len(y))
    rng = np.random.default_rng([seed, 1])
    gains = (drawn[whole] - drawn[half]) * rng.triangular(*LEFT, drawn.shape[1]) ** doublings
    gain = float((value[whole] - value[half]) * LEFT[1] ** doublings)
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    low, high = (float(end) for end in np.quantile(gains, tails))
    low, high = min(low, gain), max(high, gain)
    verdict = _verdict(low, high)
    points = []
    for at, share in enumerate(SHARES):
        ends = np.quantile(drawn[at], tails)
        points.append(
            {
                "share": share * len(y) / total,
                "rows": found.learnt[at],
                "value": float(value[at]),
                "low": float(min(ends[0], value[at])),
                "high": float(max(ends[1], value[at])),
            }
        )
    return {
        "points": points,
        "gain": gain,
        "gain_low": low,
        "gain_high": high,
        "verdict": verdict,
        "text": _sentence(verdict, DEFAULT[task], gain, low, high),
    }


@dataclass(frozen=True, eq=False)
class _Rows:
    """All rows on their axes, float32 [N, R], with the energy along these, and their targets."""

    x: Tensor
    energy: Tensor
    y: Tensor
    task: Task
    outputs: int

    def said(self, learnt: np.ndarray, held_out: np.ndarray, strengths: Sequence[float]) -> list[np.ndarray]:
        """What probes that learnt from some rows say of others, decoded as watch_metric() takes it, by strength."""
        rows, asked = torch.from_numpy(learnt), self.x[torch.from_numpy(held_out)]
        problem = LinearProblem(
            self.x[rows], self.energy * (len(rows) / len(self.y)), self.y[rows], self.task, self.outputs
        )
        model: Linear | None = None
        found = []
        for strength in strengths:
            model = problem.solve(strength, model)
            logits = torch.addmm(model.bias.float(), asked, model.weight.float().T)
            decoded = logits[:, 0] if self.task == "regression" else logits
            found.append((decoded.sigmoid() if self.task == "multilabel" else decoded).numpy())
        return found


@dataclass(frozen=True, eq=False)
class _Judged:
    """Outcomes of the held-out rows at each share, on the same rows, and the number of rows learnt from (median)."""

    outcomes: list[Outcomes]
    learnt: list[int]


def _judged(rows: _Rows, strength: float, groups: Sequence[str] | None, seed: int) -> _Judged:
    truth, n = rows.y.cpu().numpy(), len(rows.y)
    strengths = (strength * NEIGHBOURS, strength, strength / NEIGHBOURS)
    codes = None if groups is None else np.unique(np.asarray(groups, object), return_inverse=True)[1].astype(np.int64)
    repeats = min(MOST_REPEATS, max(1, round(REPEATED_ROWS / n)))
    cost = 2 * rows.x.shape[1] * rows.outputs * n * PASSES * len(strengths) * sum(SHARES)
    affordable = max(1, int(BUDGET // max(1, cost)))  # rows that are all alike have no axes
    terms: list[list[np.ndarray]] = []  # by strength and share: the sum over deals [N, T]
    times, sizes = np.zeros(n), []
    for repeat in range(repeats):
        fold = deal(truth, rows.task, FOLDS, seed + 1_000_003 * repeat, groups)
        for number in range(int(fold.max()) + 1):
            if affordable == 0:
                break
            affordable -= 1
            held_out = np.flatnonzero(fold == number)
            order = _growing(np.flatnonzero(fold != number), truth, rows.task, codes, [seed, repeat, number])
            lengths = [max(1, round(share * len(order))) for share in SHARES]
            sizes.append(lengths)
            times[held_out] += 1
            for at, length in enumerate(lengths):
                for which, said in enumerate(rows.said(order[:length], held_out, strengths)):
                    new = _terms(rows.task, said, truth[held_out])
                    if not terms:
                        terms = [[np.zeros((n, new.shape[1])) for _ in SHARES] for _ in strengths]
                    terms[which][at][held_out] += new
    seen = times > 0
    kept = None if codes is None else codes[seen]
    outcomes = []
    for at in range(len(SHARES)):
        tried = [Outcomes(rows.task, sums[at][seen] / times[seen, None], kept) for sums in terms]
        outcomes.append(max(tried, key=lambda one: one.metric()))  # a choice of three leaks next to nothing
    return _Judged(outcomes, [int(size) for size in np.median(sizes, axis=0)])


def _growing(
    rows: np.ndarray, truth: np.ndarray, task: Task, codes: np.ndarray | None, seed: Sequence[int]
) -> np.ndarray:
    """The rows in an order of chance whose beginnings are stratified samples, or whole groups at a time."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(rows)
    if codes is not None:
        places = rng.permutation(int(codes.max()) + 1)
        return shuffled[np.argsort(places[codes[shuffled]], kind="stable")]
    stratum = strata(truth[shuffled], task)
    by_stratum = np.argsort(stratum, kind="stable")
    counts = np.bincount(stratum)
    nth = np.empty(len(shuffled))
    nth[by_stratum] = np.arange(len(shuffled)) - np.repeat(np.cumsum(counts) - counts, counts)
    # each row when its stratum's share is due; ties by chance, lest small strata come all at once
    return shuffled[np.argsort((nth + rng.random(len(shuffled))) / counts[stratum], kind="stable")]


def _terms(task: Task, said: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """What the rows add to the metric. A fold's values keep the unit of all rows, so that their sums can be added."""
    if task != "regression":
        return Outcomes.of(task, said, truth).terms
    return np.stack([np.square(truth - said), truth, np.square(truth)], axis=1)


def _drawn(found: _Judged, seed: int) -> tuple[Floats, Floats]:
    """The metric at each share [S], and draws of it [S, B]: the held-out rows weighed at random, alike at all shares.

    Each row counts as less than one, since other rows to learn from would have made other probes (`standing.py`).
    """
    first = found.outcomes[0]
    n = len(first)
    units = np.arange(n) if first.groups is None else np.unique(first.groups, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    drawn = np.empty((len(found.outcomes), DRAWS))
    for start in range(0, DRAWS, BLOCK):
        weights = rng.standard_gamma(WORTH, (BLOCK, int(units.max()) + 1))[:, units]
        right, wrong = rng.standard_gamma(0.5, (2, BLOCK))
        for at, outcomes in enumerate(found.outcomes):
            drawn[at, start : start + BLOCK] = outcomes.draws(weights, right, wrong)
    return np.array([outcomes.metric() for outcomes in found.outcomes]), drawn


def _verdict(low: float, high: float) -> str:
    if low >= MATTERS:
        return "more data would help"
    return "more data would not help" if high < MATTERS else "can't tell"


def _sentence(verdict: str, metric: str, gain: float, low: float, high: float) -> str:
    name = metric_title(metric)
    span = f"twice the rows are expected to change {name} by {gain:+.3f} ({low:+.3f} to {high:+.3f})"
    why = {
        "more data would help": f"which is {MATTERS:g} or more for all we can tell",
        "more data would not help": f"less than {MATTERS:g} for all we can tell",
        "can't tell": f"which may be more or less than {MATTERS:g}",
    }[verdict]
    return f"{verdict}: {span}, {why}"
