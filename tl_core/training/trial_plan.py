"""What a trial of fine-tuning would cost, and on which rows it is judged: planned by work before anything is fitted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tl_core.extraction import decoded
from tl_core.selection.crossval import deal
from tl_core.selection.race import Budget
from tl_core.training.cut_cost import BACKWARD, row_cost
from tl_core.training.plan import plan_of
from tl_core.training.schedule import epochs_of
from tl_core.training.sources import stored_precision
from tl_core.types import Backbone

if TYPE_CHECKING:
    from tl_core.config import TuneConfig
    from tl_core.training.job import Job

PROBE = "probe"
FINE_TUNING = ("lp_ft", "finetune")  # in the order of preference where the budget has room for only one
ENOUGH = 300  # held-out rows: differences of 3 to 4 points show. So many validation rows judge alone
WANTED = 400  # where rows are held out in turn, fits beyond so many judged rows buy little
FOLDS = 3  # each costs a fit of every way of fine-tuning
REPEATS = 2  # deals of few rows: the luck of one deal is as large as what is looked for
LEAST = 100  # held-out rows of a trial that was cut short: with fewer, it is a coin that is thrown
SHARES = (1, 2, 4, 8)  # a trial learns from the rows divided by one of these
COUNTED_ROWS = 8  # texts and sounds differ in length
SLOWER = 3.0  # than the machine's speed says: small batches, weights cast in every step, the optimiser
OPENING_SECONDS = 2.0  # of each fit: reading weights, decoding, the optimiser


@dataclass(frozen=True)
class Price:
    """FLOPs of a row, below and from the first trained segment on; stored: the former are paid once a row and view."""

    below: float
    above: float
    stored: bool
    views: int

    def of(self, design: Design, tune: TuneConfig, speed: float) -> float:
        """The work of all fits of a design, FLOPs; speed: FLOP/s, by which opening a fit counts."""
        forward = self.above + (0.0 if self.stored else self.below)
        each_row = BACKWARD * self.above + (0.0 if self.stored else self.below)
        work = sum(
            SLOWER * epochs_of(tune, len(part.train)) * (len(part.train) * each_row + len(part.val) * forward)
            + (len(part.held) * (self.below + self.above) if part.held is not part.val else 0.0)
            + OPENING_SECONDS * speed
            for part in design.fits
        )
        return work + (self.below * self.views * len(design.rows) if self.stored else 0.0)


@dataclass(frozen=True)
class Part:
    """One fit of a trial: manifest rows that it learns from, that it chooses by, and that it is judged on, int64.

    Only where there are many validation rows, val and held are the same.
    """

    train: np.ndarray
    val: np.ndarray
    held: np.ndarray


@dataclass(frozen=True)
class Design:
    """Which rows each fit of a trial is given.

    folds: parts that the rows were dealt into, 1 where the validation split judges; thinned: rows are this many times
    fewer than there are.
    """

    fits: tuple[Part, ...]
    folds: int
    thinned: int = 1

    @property
    def real(self) -> bool:
        """Whether the one fit is that of the job's own split."""
        return self.folds == self.thinned == 1

    @property
    def rows(self) -> np.ndarray:
        """All rows that some fit looks at."""
        return np.unique(np.concatenate([rows for part in self.fits for rows in (part.train, part.val, part.held)]))


@dataclass(frozen=True)
class TrialPlan:
    """What is tried. work: FLOPs of each way of fine-tuning; skipped: reasons for those that are not tried."""

    design: Design
    work: float
    skipped: Mapping[str, str]


def plan_trial(job: Job, speed: float) -> TrialPlan:
    """The most telling design that `tune.minutes` has room for: for both ways of fine-tuning, else for one, else none.

    speed: FLOP/s of the machine.
    """
    tune, ways = job.config.tune, list(designs(job))
    price = price_of(job, job.spec.build(), job.tuned(strategy=FINE_TUNING[0]).config.tune)
    if price is None:
        reason = "its work can't be counted on this backbone; name the strategy to have it fitted"
        return TrialPlan(ways[0], 0.0, dict.fromkeys(FINE_TUNING, reason))
    budget = Budget(tune.minutes, speed)
    works = [price.of(way, tune, speed) for way in ways]
    for count in range(len(FINE_TUNING), 0, -1):
        for way, work in zip(ways, works, strict=True):
            if count * work <= budget.work:
                return TrialPlan(way, work, _too_slow(count, min(works), budget))
    return TrialPlan(ways[0], 0.0, _too_slow(0, min(works), budget))


def _too_slow(room: int, least: float, budget: Budget) -> dict[str, str]:
    """Why the ways of fine-tuning from this place on are not tried. least: FLOPs of the cheapest trial of one.

    What is tried before a way must be paid as well: its reason names the minutes from which on it is tried too.
    """
    reasons = {}
    for place in range(room, len(FINE_TUNING)):
        *before, name = FINE_TUNING[: place + 1]
        what = f"trials of {', '.join(before)} and of it take" if before else "a trial of it takes"
        minutes = (place + 1) * least / budget.speed / 60
        shown = math.ceil(round(10 * minutes, 6)) / 10  # rounded down it could be what tune.minutes is
        reasons[name] = (
            f"too slow: {what} about {max(0.1, shown):.1f} min at the least on this machine; tune.minutes is "
            f"{budget.minutes:g}: raise it, or name the strategy to have it fitted"
        )
    return reasons


def price_of(job: Job, backbone: Backbone, tune: TuneConfig) -> Price | None:
    """What rows cost in a fine-tuning by these settings, None where that can't be counted."""
    start = plan_of(tune, backbone).start
    few = [
        backbone.prepare(decoded(s, job.loader, backbone.need)) for s in job.manifest.samples(job.train[:COUNTED_ROWS])
    ]
    cost = row_cost(backbone, few, start, stored_precision(tune, job.device), job.device)
    if cost is None:
        return None
    varied = tune.augment and job.loader.augments
    stored = start > 0 and tune.cache != "never" and (not varied or tune.views > 0)
    return Price(cost.prefix, cost.suffix, stored, max(1, tune.views))


def designs(job: Job) -> Iterator[Design]:
    """The ways to judge a strategy on held-out rows, the most telling first.

    Validation rows judge where there are so many that what is chosen by them, of a dozen epochs or strengths, hardly
    flatters. Otherwise training and validation rows are held out in turn, whole groups at a time, and each fit splits
    the rest as the job's rows are split: with two rows to choose an epoch by, fine-tuning is a gamble that must show.
    """
    if len(job.val) >= ENOUGH:
        for divisor in SHARES:
            yield Design((Part(_thinned(job, job.train, divisor), job.val, job.val),), 1, divisor)
        return
    everything = np.concatenate([job.train, job.val])
    for divisor in SHARES:
        rows = _thinned(job, everything, divisor)
        if divisor > 1 and len(rows) < LEAST:
            return
        yield from _in_turn(job, rows, divisor)


def _in_turn(job: Job, rows: np.ndarray, divisor: int) -> Iterator[Design]:
    """Rows held out in turn: several deals of few rows, one deal, and only some of its folds."""
    most = max(1, min(REPEATS, round(ENOUGH / len(rows)))) if divisor == 1 else 1
    deals = [_dealt(job, rows, FOLDS, job.config.seed + 1_000_003 * repeat) for repeat in range(most)]
    for repeats in range(most, 0, -1):
        parts = [_part(job, rows, fold == number) for fold in deals[:repeats] for number in range(int(fold.max()) + 1)]
        count = least = len(parts)
        if repeats == 1:
            size = len(rows) / count
            count = min(count, math.ceil(WANTED / size))
            least = min(count, math.ceil(LEAST / size))
        for some in range(count, least - 1, -1):
            yield Design(tuple(parts[:some]), int(deals[0].max()) + 1, divisor)


def _part(job: Job, rows: np.ndarray, held: np.ndarray) -> Part:
    """What is not held out, split for training and validation in the job's own proportion."""
    left = rows[~held]
    share = round((len(job.train) + len(job.val)) / len(job.val))
    val = _dealt(job, left, max(2, share), job.config.seed) == 0
    return Part(left[~val], left[val], rows[held])


def _thinned(job: Job, rows: np.ndarray, divisor: int) -> np.ndarray:
    """One in `divisor` of the rows, stratified, by whole groups."""
    return rows if divisor == 1 else rows[_dealt(job, rows, divisor, job.config.seed) == 0]


def _dealt(job: Job, rows: np.ndarray, folds: int, seed: int) -> np.ndarray:
    targets = job.manifest.targets
    return deal(job.manifest.target_array(rows), targets.task, folds, seed, job.manifest.groups(rows))
