"""The ranking of `tl select` on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from tl_core.report import RankedBackbone, Ranking

SHOWN = 20  # candidates in the table; ranking.json has them all
STYLES = {"chosen": "bold green", "tied": "", "behind": "", "eliminated": "dim"}


def ranking_table(ranking: Ranking) -> Table:
    """Two lines per candidate that was measured, the first SHOWN of them; readable at 100 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from tl_core.evaluation import metric_title

    share = f"{100 * ranking.confidence:.0f}%"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("rank\nrange", no_wrap=True)
    table.add_column("backbone\nlicence, standing", overflow="fold")
    table.add_column(f"{metric_title(ranking.metric)}\n{share} interval", no_wrap=True)
    table.add_column("P(best)", justify="right", no_wrap=True)
    table.add_column(f"regret\n{ranking.unit}", justify="right", no_wrap=True)
    table.add_column("FLOPs\nrelative", justify="right", no_wrap=True)
    table.add_column("params", justify="right", no_wrap=True)
    for candidate in ranking.measured[:SHOWN]:
        table.add_row(*_row(ranking, candidate), style=STYLES[ranking.standing(candidate)])
    return table


def ranking_lines(ranking: Ranking) -> list[str]:
    """What stands below the table: who is tied with the leader, who dropped out, why the race ended, and the choice."""
    from tl_core.evaluation import metric_title
    from tl_core.report.templates import number

    lines, raced = [], len(ranking.measured) > 1
    if len(ranking.measured) > SHOWN:
        lines.append(f"{len(ranking.measured) - SHOWN} more are in ranking.json")
    if ranking.tied:
        lines.append(f"tied with the leader, {ranking.leader.name}: {', '.join(c.name for c in ranking.tied)}")
    lines += [f"dropped out: {c.name}: {c.reason}" for c in ranking.dropped]
    if raced:
        lines.append(f"why it ended: {ranking.stopped}")
    chosen = f"select: {ranking.chosen}, {ranking.why}"
    if raced:
        chosen += f"; {ranking.certainty()}"
    elif ranking.leader.measure:
        value, low, high = map(number, ranking.leader.measure)
        chosen += f"; {metric_title(ranking.metric)} {value} ({low} to {high})"
    return [*lines, chosen]


def _row(ranking: Ranking, candidate: RankedBackbone) -> list[str | Text]:
    from rich.text import Text

    from tl_core.report.templates import multiple, number, percent, quantity

    ranks = {candidate.rank_low, candidate.rank_high} - {None}
    value, low, high = map(number, candidate.measure) if candidate.measure else ("", "", "")
    name = Text(candidate.name).append("\n").append(_licence(candidate))
    standing = {"chosen": "chosen", "tied": "tied", "eliminated": f"out after {candidate.rows:,} rows"}
    if said := standing.get(ranking.standing(candidate)):
        name.append(f", {said}")
    relative = ranking.relative_cost(candidate)
    return [
        f"{candidate.rank}\n{candidate.rank_low} to {candidate.rank_high}" if len(ranks) > 1 else f"{candidate.rank}",
        name,
        f"{value}\n{low} to {high}",
        "" if candidate.p_best is None else percent(candidate.p_best),
        "" if candidate.regret is None else ranking.difference(candidate.regret),
        "" if candidate.flops is None else quantity(candidate.flops) + (f"\n{multiple(relative)}" if relative else ""),
        "" if candidate.params is None else quantity(candidate.params),
    ]


def _licence(candidate: RankedBackbone) -> Text:
    from rich.text import Text

    text = Text(candidate.licence or "licence not stated", style="not bold")
    if candidate.licence_kind == "non-commercial":
        text.append(" (non-commercial)", style="yellow")
    elif candidate.licence_kind == "unknown":
        text.append(" (check its terms)", style="yellow")
    return text
