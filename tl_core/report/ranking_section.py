"""What the report's section on the backbones shows: sentences, rows and second opinions, ready for the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from tl_core.evaluation import Interval, metric_title
from tl_core.report.cost_picture import CostPicture, cost_picture, worth_showing
from tl_core.report.plots import Bar, comparison_bars
from tl_core.report.ranking import RankedBackbone, Ranking, Standing, Warned
from tl_core.report.templates import first_up, listed

FOLD_CANDIDATES = 15  # shown at once; the others unfold
SCORES = {
    "consensus": "consensus", "logme": "LogME", "h_score": "H-score", "knn": "kNN", "nleep": "NLEEP", "leep": "LEEP",
    "gbc": "GBC", "transrate": "TransRate",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A measured candidate in the table."""

    candidate: RankedBackbone
    standing: Standing
    bar: Bar | None
    relative_cost: float | None


@dataclass(frozen=True)
class Opinion:
    """What another score says of the candidates that it can be compared on.

    tau: Kendall's rank correlation with the probe's order; first: whom it puts first, where that is not the chosen one.
    """

    title: str
    tau: float
    compared: int
    first: RankedBackbone | None


@dataclass(frozen=True)
class RankingSection:
    """Everything that the template asks for. set_aside: names tied with the leader, but too far behind to choose."""

    ranking: Ranking
    metric: str
    rows: list[Row]
    picture: CostPicture | None
    picture_words: str
    scores: list[tuple[str, str]]
    opinions: list[Opinion]
    warnings: list[tuple[str, Warned]]
    set_aside: str
    folded: int = FOLD_CANDIDATES


def ranking_section(ranking: Ranking) -> RankingSection:
    """The section's contents; two candidates with the same warning share a line."""
    measured, picture = ranking.measured, cost_picture(ranking)
    bars = comparison_bars([Interval.of(*c.measure) if c.measure else None for c in measured], _range(measured))
    metric = metric_title(ranking.metric)
    return RankingSection(
        ranking=ranking,
        metric=metric,
        rows=[Row(c, ranking.standing(c), bar, ranking.relative_cost(c)) for c, bar in zip(measured, bars)],
        picture=picture,
        picture_words=_words(ranking, picture, metric) if picture else "",
        scores=_score_titles(measured),
        opinions=_opinions(ranking),
        warnings=_warnings(ranking),
        set_aside=listed([c.name for c in ranking.tied if c not in ranking.rivals and c.name != ranking.chosen]),
    )


def _range(measured: Sequence[RankedBackbone]) -> tuple[float, float]:
    return worth_showing(measured) if any(c.measure for c in measured) else (0.0, 1.0)


def _words(ranking: Ranking, picture: CostPicture, metric: str) -> str:
    """The picture for those who can't see it."""
    shown = [point.candidate for point in picture.points]
    cheapest = min(shown, key=lambda c: (c.flops or 0, c.name))
    dearest = max(shown, key=lambda c: (c.flops or 0, c.name))
    best = max(shown, key=lambda c: (c.probe or 0.0, c.name))
    return (
        f"{first_up(metric)} over FLOPs per sample of {len(shown)} backbones. Chosen: {ranking.chosen}. "
        f"Best {metric}: {best.name}. Cheapest: {cheapest.name}. Dearest: {dearest.name}. "
        "The table below says the same in numbers."
    )


def _score_titles(measured: Sequence[RankedBackbone]) -> list[tuple[str, str]]:
    """(key, title) of the scores that anyone has, the known ones first."""
    present = {key for candidate in measured for key in candidate.scores}
    return [(k, SCORES[k]) for k in SCORES if k in present] + [(k, k) for k in sorted(present - SCORES.keys())]


def _opinions(ranking: Ranking) -> list[Opinion]:
    """Each score against the probe, among those judged on as many rows as the leader: others are not comparable."""
    measured = ranking.measured
    if not measured:
        return []
    peers = [c for c in measured if c.rows == ranking.leader.rows and c.probe is not None]
    found = []
    for key, title in _score_titles(peers):
        pairs = [(c, c.scores[key]) for c in peers if key in c.scores]
        if len(pairs) >= 2:
            first = max(pairs, key=lambda pair: pair[1].value)[0]
            tau = _kendall([(c.probe or 0.0, score.value) for c, score in pairs])
            found.append(Opinion(title, tau, len(pairs), None if first.name == ranking.chosen else first))
    return found


def _kendall(pairs: Sequence[tuple[float, float]]) -> float:
    """Kendall's tau-b of pairs of numbers; 0 where either side is all one value."""
    agree = x_tied = y_tied = total = 0
    for (x1, y1), (x2, y2) in combinations(pairs, 2):
        x, y = (x1 > x2) - (x1 < x2), (y1 > y2) - (y1 < y2)
        agree, x_tied, y_tied, total = agree + x * y, x_tied + (x == 0), y_tied + (y == 0), total + 1
    scale = ((total - x_tied) * (total - y_tied)) ** 0.5
    return agree / scale if scale else 0.0


def _warnings(ranking: Ranking) -> list[tuple[str, Warned]]:
    """(names, warning): those of the data, then the candidates' in the ranking's order."""
    names: dict[Warned, list[str]] = {warning: ["the data"] for warning in ranking.warnings}
    for candidate in ranking.candidates:
        for warning in candidate.warnings:
            names.setdefault(warning, []).append(candidate.name)
    return [(listed(mine), warning) for warning, mine in names.items()]
