"""What `tl select` found, as the report and the command line read it; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tl_core.report.formats import read_format
from tl_core.report.templates import listed, percent
from tl_core.report.units import amount, difference, unit_of

FORMAT_VERSION = 2

Standing = Literal["chosen", "tied", "behind", "eliminated", "dropped"]
NAMED = 4  # names in a sentence; more of them are counted
_PREFERRED = {"cost": "the cheapest of them", "size": "the smallest of them", "accuracy": "first of them"}


@dataclass(frozen=True)
class Score:
    """A score beside the probe, higher is better; low and high are None where it has no interval."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Warned:
    """Something that doesn't suit the data or the user, and what can be done about it."""

    about: str
    text: str
    remedy: str


@dataclass(frozen=True)
class RankedBackbone:
    """A candidate. Shares between 0 and 1; a dropped one has a reason and no numbers.

    rank: 1 is best, with its interval; probe: the cross-validated metric; regret: expected, against the best of all;
    gap: the leader's metric minus this one's; flops: of one sample; base, cut: of a view, what it was cut from, and
    where.
    """

    name: str
    status: Literal["ranked", "eliminated", "dropped"]
    reason: str | None = None
    rank: int | None = None
    rank_low: int | None = None
    rank_high: int | None = None
    rows: int | None = None
    probe: float | None = None
    probe_low: float | None = None
    probe_high: float | None = None
    p_best: float | None = None
    regret: float | None = None
    gap: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None
    tied: bool = False
    scores: Mapping[str, Score] = field(default_factory=dict)
    flops: int | None = None
    params: int | None = None
    feature_dim: int | None = None
    licence: str | None = None
    licence_kind: Literal["permissive", "copyleft", "non-commercial", "unknown"] = "unknown"
    base: str | None = None
    cut: str | None = None
    warnings: tuple[Warned, ...] = ()

    @property
    def measure(self) -> tuple[float, float, float] | None:
        """The probe's metric, and its interval: (value, low, high)."""
        if self.probe is None:
            return None
        low, high = (self.probe if end is None else end for end in (self.probe_low, self.probe_high))
        return self.probe, min(low, self.probe), max(high, self.probe)

    @property
    def licence_flagged(self) -> bool:
        """Whether a user has to look at the licence before anything is sold."""
        return self.licence_kind in ("non-commercial", "unknown")


@dataclass(frozen=True)
class Round:
    """A round of the race: rows that each was judged on, who began it, who left after it."""

    rows: int
    entered: int
    eliminated: tuple[str, ...] = ()


@dataclass(frozen=True)
class LookedAt:
    """A view of a finalist: its probe's metric, and whether it beat its whole backbone and so joined the ranking."""

    name: str
    probe: float
    joined: bool


@dataclass(frozen=True)
class Ranking:
    """ranking.json. candidates: by predicted rank, dropped ones last; why: why the chosen one was taken.

    warnings: those that hold whichever backbone is taken; judged_on: which features the probe saw, all layers' where
    the model will be fine-tuned.
    """

    chosen: str
    why: str
    task: str
    metric: str
    confidence: float
    prefer: Literal["cost", "accuracy", "size"]
    tolerance: float
    sample_rows: int
    training_rows: int
    stopped: str
    candidates: tuple[RankedBackbone, ...]
    rounds: tuple[Round, ...] = ()
    judged_on: Literal["embedding", "all layers"] = "embedding"
    views: tuple[LookedAt, ...] = ()
    warnings: tuple[Warned, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Ranking:
        """Read ranking.json. Raises FormatError on another format's or a damaged file."""
        return read_format(Ranking, path, FORMAT_VERSION, "ranking", "select")

    @property
    def measured(self) -> list[RankedBackbone]:
        """Those that have numbers, by predicted rank; the first of them leads."""
        return [c for c in self.candidates if c.status != "dropped"]

    @property
    def dropped(self) -> list[RankedBackbone]:
        return [c for c in self.candidates if c.status == "dropped"]

    @property
    def chosen_one(self) -> RankedBackbone:
        return next(c for c in self.candidates if c.name == self.chosen)

    @property
    def leader(self) -> RankedBackbone:
        """The first in the ranking, which need not be the chosen one."""
        return self.measured[0]

    @property
    def tied(self) -> list[RankedBackbone]:
        """Those that can't be told from the leader, without the leader; empty where nobody is."""
        return [c for c in self.measured[1:] if c.tied]

    def standing(self, candidate: RankedBackbone) -> Standing:
        """What became of a candidate, in one word: the leader is `tied` where any other is tied with it."""
        if candidate.name == self.chosen:
            return "chosen"
        if candidate.status != "ranked":
            return candidate.status
        leads = candidate.name == self.leader.name
        return "tied" if candidate.tied or (leads and self.tied) else "behind"

    def relative_cost(self, candidate: RankedBackbone) -> float | None:
        """FLOPs as a multiple of the chosen one's; None where either is not known."""
        own, chosen = candidate.flops, self.chosen_one.flops
        return own / chosen if own and chosen else None

    @property
    def unit(self) -> str:
        """What differences are told in: points (hundredths) of a share, the number itself for R²."""
        return unit_of(self.metric)

    def amount(self, value: float, title: str = "") -> str:
        """A difference with its unit: `0.8 points`, `0.8 points of accuracy`, `0.008 of R²`."""
        return amount(value, self.metric, title)

    def difference(self, value: float) -> str:
        """A difference between two metrics in `unit`, without its name."""
        return difference(value, self.metric)

    @property
    def rivals(self) -> list[RankedBackbone]:
        """Those that the chosen one was taken from, without it; by the rule of tl_core.selection's contenders()."""
        first, *others = [c for c in self.measured if c.status == "ranked"]
        within = [c for c in others if c.tied and (c.gap or 0.0) - (first.gap or 0.0) <= self.tolerance]
        return [c for c in (first, *within) if c.name != self.chosen]

    def because(self) -> str:
        """Why the chosen one was taken, with the names of those that it was taken from."""
        rivals = [c.name for c in self.rivals]
        if not rivals:
            return self.why
        among = listed(rivals) if len(rivals) <= NAMED else f"{len(rivals)} others"
        return f"tied with {among}, and {_PREFERRED[self.prefer]}"

    def certainty(self) -> str:
        """How sure the choice is, in a few words; empty where there was nothing to choose from."""
        chosen = self.chosen_one
        if len(self.measured) < 2 or chosen.p_best is None or chosen.regret is None:
            return ""
        return f"P(best) {percent(chosen.p_best)}, expected regret {self.amount(chosen.regret)}"
