"""What `tl tune` did, as the report and the command line read it; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tl_core.report.formats import read_format
from tl_core.report.units import amount, difference, unit_of

FORMAT_VERSION = 2

TITLES = {
    "probe": "A probe on the frozen backbone",
    "finetune": "Fine-tuned",
    "lp_ft": "Fine-tuned from the probe's weights",
    "gradual": "Fine-tuned from the top downwards",
    "scratch": "Trained from random weights",
    "contrastive": "Tuned by pairs of samples, then a probe",
}
Verdict = Literal["more data would help", "more data would not help", "can't tell"]


@dataclass(frozen=True)
class Candidate:
    """A strategy in auto's trial. value: the watched metric on held-out rows; gap: the best one's minus this one's.

    reason: why it was skipped; gflops: what its trial took, in units of 10^9 operations.
    """

    strategy: str
    status: Literal["tried", "skipped"]
    reason: str | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    gap: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None
    p_best: float | None = None
    log_loss: float | None = None
    gflops: float | None = None

    @property
    def measure(self) -> tuple[float, float, float] | None:
        """The metric and its interval: (value, low, high)."""
        if self.value is None:
            return None
        low, high = (self.value if end is None else end for end in (self.low, self.high))
        return self.value, min(low, self.value), max(high, self.value)


@dataclass(frozen=True)
class Decision:
    """What auto chose, and by what. rows: held-out rows; folds: parts they were dealt into, 1: the validation split."""

    chosen: str
    why: str
    rows: int
    folds: int
    confidence: float
    candidates: tuple[Candidate, ...]

    @property
    def tried(self) -> list[Candidate]:
        """Those that have a value, the best first."""
        measured = [c for c in self.candidates if c.value is not None]
        return sorted(measured, key=lambda c: (c.gap if c.gap is not None else 0.0, c.strategy))

    @property
    def skipped(self) -> list[Candidate]:
        return [c for c in self.candidates if c.value is None]


@dataclass(frozen=True)
class Strength:
    """A strength on the probe's path: the watched metric on training and validation rows, the loss on the latter."""

    strength: float
    train: float | None = None
    val: float | None = None
    val_loss: float | None = None


@dataclass(frozen=True)
class ProbeFacts:
    """strength: the one that was taken; refit: whether it was fitted again on training and validation rows."""

    strength: float
    refit: bool
    path: tuple[Strength, ...]


@dataclass(frozen=True)
class Epoch:
    """An epoch: losses, the watched metric on training and validation rows, the backbone's learning rate at its end."""

    epoch: int
    loss: float | None = None
    train: float | None = None
    val_loss: float | None = None
    val: float | None = None
    lr: float | None = None


@dataclass(frozen=True)
class Stored:
    """States that training read from the store: those before the segment `name`; views: augmented variants of each."""

    name: str
    bytes: int
    rows: int
    views: int = 0


@dataclass(frozen=True)
class FoundRate:
    """The learning rate that a range test found, and its points (rate, loss); a loss is null where it overflowed."""

    lr: float
    points: tuple[tuple[float, float | None], ...]


@dataclass(frozen=True, kw_only=True)
class TrainedFacts:
    """How a backbone was trained.

    memory_batch: rows that went through the network at once; cut_why: why states were stored, or were not; wise: share
    of the tuned weights in the model; ema: decay of the moving average that is the model, 0 for none.
    """

    trained_segments: tuple[str, ...]
    trained_parameters: int
    update: str
    precision: str
    memory_batch: int | None = None
    cut: Stored | None = None
    cut_why: str = ""
    wise: float = 1.0
    ema: float = 0.0


@dataclass(frozen=True, kw_only=True)
class FinetuneFacts(TrainedFacts):
    """A fine-tuning. stopped: why it ended before its last epoch; diverged: because its loss was no number any more."""

    best_epoch: int
    history: tuple[Epoch, ...]
    stopped: str | None = None
    diverged: bool = False
    found_lr: FoundRate | None = None


@dataclass(frozen=True, kw_only=True)
class ContrastiveFacts(TrainedFacts):
    """A tuning of the backbone by pairs of samples, before a probe on it. losses: of each epoch."""

    losses: tuple[float, ...]


@dataclass(frozen=True)
class BestTrial:
    """The settings that did best, by config key."""

    settings: Mapping[str, Any]
    value: float | None


@dataclass(frozen=True)
class SearchFacts:
    """A search. pruned: trials that were stopped early; values: the best so far after each trial; importance: share of
    the differences that a setting explains."""

    trials: int
    pruned: int
    watch: str
    best: BestTrial
    values: tuple[float | None, ...] = ()
    importance: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CurvePoint:
    """The watched metric of a model on a share of the training rows."""

    share: float
    rows: int
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class LearningCurve:
    """The learning curve. gain: what twice the rows are expected to bring, with its interval."""

    points: tuple[CurvePoint, ...]
    verdict: Verdict
    text: str
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None


@dataclass(frozen=True)
class Gap:
    """How much better the model does on rows that it learned from than on those it did not."""

    train: float
    val: float
    gap: float
    memorised: bool
    text: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class StartFacts:
    """The model that training was to go on from. used: whether it did; text: what it took, or why not."""

    asked: str
    used: bool
    text: str


@dataclass(frozen=True)
class Tuning:
    """tune.json. asked: the strategy in the config; strategy: the one that was fitted; watch: the metric that chose;
    temperature: what logits are divided by."""

    asked: str
    strategy: str
    watch: str
    validation: float
    temperature: float | None = None
    start: StartFacts | None = None
    decision: Decision | None = None
    probe: ProbeFacts | None = None
    finetune: FinetuneFacts | None = None
    contrastive: ContrastiveFacts | None = None
    search: SearchFacts | None = None
    curve: LearningCurve | None = None
    gap: Gap | None = None

    @classmethod
    def load(cls, path: Path) -> Tuning:
        """Read tune.json. Raises FormatError on another format's or a damaged file."""
        return read_format(Tuning, path, FORMAT_VERSION, "tuning", "tune")

    @property
    def title(self) -> str:
        """What was done, in a few words."""
        return TITLES.get(self.strategy, self.strategy)

    def reason(self) -> str:
        """Why this strategy was fitted, without a full stop."""
        return self.decision.why if self.decision else f"as asked for (tune.strategy={self.asked})"

    @property
    def unit(self) -> str:
        """What differences of the watched metric are told in; empty where it is the target's own unit."""
        return unit_of(self.watch)

    def amount(self, value: float, title: str = "") -> str:
        """A difference of the watched metric with its unit."""
        return amount(value, self.watch, title)

    def difference(self, value: float) -> str:
        """A difference of the watched metric in `unit`, without its name."""
        return difference(value, self.watch)
