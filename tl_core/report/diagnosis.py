"""What the report's section on diagnostics shows: each check with its state, sentence, pictures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tl_core.diagnostics.results import (
    Calibration,
    Diagnostics,
    Leakage,
    OutOfDistribution,
    Robustness,
    Shift,
    ShiftTest,
    State,
)
from tl_core.evaluation import Interval, metric_title
from tl_core.report.lines import REFERENCE, Lines, Series, picture
from tl_core.report.plots import Bar, comparison_bars
from tl_core.report.templates import first_up, number, percent
from tl_core.report.tuning_pictures import ends_of
from tl_core.report.units import difference, unit_of
from tl_core.report.verdicts import STATES, Colour

MAX_SUSPECTS = 100  # of 200 that report.json may hold: with the limits of page.py they keep the page under 5 MB
MAX_DUPLICATES = 100
MAX_GROUPS = 60
MAX_TESTS = 12  # of shift; the others stand in report.json
MAX_MOVED = 3  # classes named in a row on shift
APART = 0.6  # AUC from which rows surely differ by more than a little
CHANCE = 0.1  # p of both ways and of all comparisons together, below which rows differ beyond chance
DIFFERS = "differs"  # what that comes to where nobody need act on it
DRAWN = 4  # corruptions in the picture; the table has all


@dataclass(frozen=True)
class Check:
    """A check in the overview and at the head of its part. anchor: of that part."""

    anchor: str
    title: str
    colour: Colour
    word: str
    text: str


@dataclass(frozen=True)
class Measured:
    """A row of a table with a number: bar is its place on the table's scale, text what stands there without one.

    cells: the columns after it; marked: it needs looking at.
    """

    name: str
    interval: Interval | None
    bar: Bar | None
    cells: tuple[str, ...] = ()
    marked: bool = False
    text: str = "–"


@dataclass(frozen=True)
class Table:
    """A table whose second column is a drawn number; head: titles of all columns; left_out: rows that had no room."""

    caption: str
    head: tuple[str, ...]
    rows: list[Measured]
    left_out: int = 0


@dataclass(frozen=True)
class Part:
    """A check in full. items: rows named in a plain table, as (head, rows); left_out: of them."""

    check: Check
    facts: list[tuple[str, str]]
    pictures: list[Lines]
    caption: str
    tables: list[Table]
    head: tuple[str, ...] = ()
    items: Sequence[Sequence[str]] = ()
    items_caption: str = ""
    items_left_out: int = 0


@dataclass(frozen=True)
class Diagnosis:
    """The whole section. skipped: sentences on what was not looked at."""

    parts: list[Part]
    skipped: Sequence[str]


def diagnosis(found: Diagnostics, watch: str) -> Diagnosis:
    """The section's contents. watch: the metric that scores are in."""
    parts = [
        _leakage(found.leakage, watch) if found.leakage else None,
        _labels(found) if found.labels else None,
        _shift(found.shift, watch) if found.shift else None,
        *(_subgroups(found, i, watch) for i in range(len(found.subgroups))),
        _calibration(found.calibration) if found.calibration else None,
        _unusual(found.unusual, watch) if found.unusual else None,
        _robustness(found.robustness, watch) if found.robustness else None,
    ]
    return Diagnosis([part for part in parts if part], found.skipped)


def _check(anchor: str, title: str, state: State, text: str) -> Check:
    return Check(anchor, title, *STATES[state], text)


def _leakage(leakage: Leakage, watch: str) -> Part:
    title = first_up(metric_title(watch))
    found = leakage.state == "warn"  # else as many resemble others as chance makes
    scores = [
        (f"{title}, all test rows", leakage.score),
        (f"{title} without {'the leaked rows' if found else 'those that resemble others'}", leakage.clean),
    ]
    tables = [_scores(f"{title} with and without them", scores, watch, leakage.cost)]
    if leakage.groups:
        split = leakage.groups
        pairs = [
            (f"{title}, split at random", split.random),
            (f"{title}, whole groups held out ({split.groups:,} groups)", split.grouped),
        ]
        tables.append(_scores("A probe, cross-validated over all rows in two ways", pairs, watch, split.gap))
    facts = [("exact copies", f"{leakage.exact:,}"), ("near copies", f"{leakage.near:,}")]
    if leakage.near and not found:
        facts[1] = ("as similar as near copies, by chance", f"{leakage.near:,}")
    if leakage.threshold is not None:
        facts.append(("near from a similarity of", number(leakage.threshold)))
    if leakage.shared_groups:
        named = ", ".join(leakage.shared_groups[:20]) + (", …" if len(leakage.shared_groups) > 20 else "")
        facts.append(("groups in test and elsewhere", f"{named}: {leakage.shared_rows:,} test rows"))
    shown = leakage.duplicates[:MAX_DUPLICATES]
    return Part(
        _check("leakage", "Leakage between the splits", leakage.state, leakage.text),
        facts,
        [],
        "",
        [table for table in tables if table],
        ("Test row", "Repeats", "Split", "Similarity", "Labels"),
        [
            (d.id, d.other_id, d.other_split, "same bytes" if d.exact else f"{d.similarity:.4f}",
             "differ" if d.differ else "agree")
            for d in shown
        ],
        "Test rows and what they repeat, the most similar first",
        len(leakage.duplicates) - len(shown),
    )  # fmt: skip


def _labels(found: Diagnostics) -> Part:
    labels = found.labels
    assert labels is not None
    shown = labels.suspects[:MAX_SUSPECTS]
    return Part(
        _check("labels", "Label errors", labels.state, labels.text),
        [
            ("suspects", f"{labels.found:,} of {labels.rows:,} rows"),
            ("estimated share of wrong labels", _share(labels.share)),
        ],
        [],
        "",
        [],
        ("Row", "Split", "Labelled", "Suggested", "Quality"),
        [(s.id, s.split, s.given, s.suggested, f"{s.quality:.3f}") for s in shown],
        "The labels that look most wrong; quality 0: surely wrong",
        max(labels.found, len(labels.suspects)) - len(shown),
    )


def _shift(shift: Shift, watch: str) -> Part:
    ranked = sorted(shift.tests, key=lambda test: (test.kind != "split", test.state != "warn", -test.auc.value))
    tests = ranked[:MAX_TESTS]
    bars = _bars([test.auc for test in tests], (0.4, 1.0))
    rows = [
        Measured(
            test.name.removesuffix(" against the others"),
            test.auc,
            bar,
            (
                _comes_to(test, len(shift.tests)),
                f"{test.rows[0]:,} / {test.rows[1]:,}",
                _p(min(test.p, test.mmd_p)),
                _interval(test.cost, watch),
                ", ".join(f"{name} {auc:.2f}" for name, auc in test.classes[:MAX_MOVED]) or "–",
            ),
            test.state == "warn",
        )
        for test, bar in zip(tests, bars, strict=True)
    ]
    title = metric_title(watch)
    head = ("Compared", "Told apart (AUC)", "Comes to", "Rows", "p", f"Gap{_in(watch)}", "Moved most")
    caption = (
        "AUC 0.5: alike; 1: told apart without fail. p: the smaller of the classifier's and the kernel means'. "
        f"Gap: {title} on the first rows minus that on the others."
    )
    if any(test.kind == "group" for test in tests):
        caption += " A value of a column is compared with all other rows."
    if any(_comes_to(test, len(shift.tests)) == DIFFERS for test in tests):
        caption += f" “{first_up(DIFFERS)}”: as most values of its column do, or without harm."
    return Part(
        _check("shift", "Shift between parts of the data", shift.state, shift.text),
        [],
        [],
        "",
        [Table(caption, head, rows, len(shift.tests) - len(tests))] if rows else [],
    )


def _comes_to(test: ShiftTest, tests: int) -> str:
    """The state in words, of so many tests; rows that are apart and need no action are not the same as alike ones."""
    apart = test.auc.low >= APART or 2 * min(test.p, test.mmd_p) * tests <= CHANCE
    return DIFFERS if test.state == "ok" and apart else STATES[test.state][1]


def _subgroups(found: Diagnostics, index: int, watch: str) -> Part:
    part = found.subgroups[index]
    groups = part.groups[:MAX_GROUPS]
    bars = _bars([group.score for group in groups])
    rows = [
        Measured(
            group.name, group.score, bar, (f"{group.rows:,}", _interval(group.gap, watch)), group.name == part.worst
        )
        for group, bar in zip(groups, bars, strict=True)
    ]
    head = (part.column, first_up(metric_title(watch)), "Test rows", f"Gap to all others{_in(watch)}")
    caption = "Worst first. Below 0: worse than all others. The gaps' intervals hold together."
    return Part(
        _check(f"subgroups{f'-{index + 1}' if index else ''}", f"Groups by {part.column}", part.state, part.text),
        [],
        [],
        "",
        [Table(caption, head, rows, len(part.groups) - len(groups))] if rows else [],
    )


def _calibration(calibration: Calibration) -> Part:
    bins = [b for b in calibration.bins if b.rows]
    series = [
        Series("as it should be", REFERENCE, [(0.0, 0.0), (1.0, 1.0)]),
        Series(
            "measured, with its interval",
            0,
            [(b.confidence, b.accuracy.value) for b in bins],
            [(b.confidence, b.accuracy.low, b.accuracy.high) for b in bins],
        ),
    ]
    words = (
        f"Reliability diagram: how often {len(bins)} bins of test rows are right over how sure the model is of them. "
        "The table below says the same in numbers."
    )
    drawn = picture("How often it is right", "how sure it is", words, series, ends=(0.0, 1.0), shares=True)
    facts = [
        ("calibration error", _plain(calibration.error)), ("confidence minus accuracy", _plain(calibration.offset)),
        ("log loss", _plain(calibration.log_loss)), ("Brier score", _plain(calibration.brier)),
    ]  # fmt: skip
    if calibration.temperature is not None:
        facts.append(("logits are divided by", f"{calibration.temperature:.3f}"))
    answers = sum(b.rows for b in bins)  # of several labels, each is one
    rows = f"{calibration.rows:,} test rows"
    said = rows if answers == calibration.rows else f"{answers:,} answers on {rows}"
    caption = (
        f"{said} in {len(bins)} bin{'s' if len(bins) != 1 else ''}. Above the dashed line: not sure enough; below: "
        "too sure."
    )
    return Part(
        _check("calibration", "Calibration", calibration.state, calibration.text),
        facts,
        [drawn] if drawn and len(bins) > 1 else [],
        caption,
        [],
        ("Confidence", "Rows" if answers == calibration.rows else "Answers", "Mean confidence", "Right", "Interval"),
        [
            (f"{b.low:.2f} to {b.high:.2f}", f"{b.rows:,}", f"{b.confidence:.3f}", f"{b.accuracy.value:.3f}",
             f"{b.accuracy.low:.3f} to {b.accuracy.high:.3f}")
            for b in bins
        ],
        "The bins in numbers",
    )  # fmt: skip


def _unusual(unusual: OutOfDistribution, watch: str) -> Part:
    title = first_up(metric_title(watch))
    words = f"{title} on the most familiar share of the test rows."
    if unusual.curve:
        (first, at_first), (last, at_last) = unusual.curve[0], unusual.curve[-1]
        words += f" From {number(at_first)} on {percent(first)} of them to {number(at_last)} on {percent(last)}."
    drawn = picture(
        f"{title} on the most familiar rows", "share of test rows kept", words,
        [Series(metric_title(watch), 0, unusual.curve)], shares=True,
    )  # fmt: skip
    pairs = [(f"{title}, rows accepted", unusual.accepted), (f"{title}, rows refused", unusual.refused)]
    table = _scores("By the threshold that validation rows set", pairs, watch)
    return Part(
        _check("unusual", "Unusual rows", unusual.state, unusual.text),
        [
            ("test rows above the threshold", _share(unusual.rejected)),
            ("of validation rows it keeps", percent(unusual.kept)),
            ("threshold, a distance of features", number(unusual.threshold)),
        ],
        [drawn] if drawn else [],
        "A curve that falls from left to right: the model does worse on the unusual rows. Small steps are chance.",
        [table] if table else [],
    )


def _robustness(robustness: Robustness, watch: str) -> Part:
    severities = sorted({severity for c in robustness.corruptions for severity, _, _ in c.points})
    ranked = sorted(robustness.corruptions, key=lambda c: (c.points[-1][2].value if c.points else 0.0, c.name))
    series = [
        Series(c.name, style, [(0.0, robustness.plain.value), *((float(s), m.value) for s, m, _ in c.points)])
        for style, c in enumerate(ranked[:DRAWN])
    ]
    title = first_up(metric_title(watch))
    words = f"{title} over the severity of {len(series)} corruptions. The table below says the same in numbers."
    drawn = picture(title, "severity (0: as they are)", words, series)
    rows = []
    lasts = [c.points[-1][1] if c.points else None for c in ranked]
    for corruption, last, bar in zip(ranked, lasts, _bars(lasts), strict=True):
        by = {severity: drop for severity, _, drop in corruption.points}
        cells = tuple(_interval(by.get(severity), watch) for severity in severities)
        surely = bool(corruption.points) and corruption.points[-1][2].high < 0
        rows.append(Measured(corruption.name, last, bar, cells, surely and corruption.name == robustness.worst))
    head = ("Corruption", f"{title} at its highest", *(f"Change at {s}{_in(watch)}" for s in severities))
    left = len(ranked) - len(series)
    more = "" if not left else "; the table has one more, which costs less" if left == 1 else (
        f"; the table has {left} more, which cost less"
    )  # fmt: skip
    caption = f"{robustness.rows:,} test rows{more}."
    return Part(
        _check("robustness", "Robustness", robustness.state, robustness.text),
        [(f"{title} as they are", _plain(robustness.plain))],
        [drawn] if drawn and series else [],
        caption,
        [Table("What each corruption costs, the dearest first", head, rows)] if rows else [],
    )


def _scores(
    caption: str,
    pairs: Sequence[tuple[str, Interval | None]],
    watch: str,
    gap: Interval | None = None,
) -> Table | None:
    """Scores below one another on one scale, their difference in a last row without a bar."""
    known = [(name, interval) for name, interval in pairs if interval]
    if not known:
        return None
    bars = _bars([interval for _, interval in known])
    rows = [Measured(name, interval, bar) for (name, interval), bar in zip(known, bars, strict=True)]
    if gap:
        rows.append(Measured(f"Difference{_in(watch)}", None, None, text=_interval(gap, watch)))
    return Table(caption, ("On", first_up(metric_title(watch))), rows)


def _bars(intervals: Sequence[Interval | None], at_least: tuple[float, float] | None = None) -> list[Bar | None]:
    """Numbers on one scale that holds them all."""
    measured = [(i.value, i.low, i.high) for i in intervals if i]
    if not measured:
        return [None for _ in intervals]
    low, high = ends_of(measured)
    return comparison_bars(intervals, (min(low, at_least[0]), max(high, at_least[1])) if at_least else (low, high))


def _in(watch: str) -> str:
    """The unit of differences behind a title."""
    return f", {unit_of(watch)}" if unit_of(watch) else ""


def _interval(interval: Interval | None, watch: str) -> str:
    if interval is None:
        return "–"
    value, low, high = (difference(v, watch) for v in (interval.value, interval.low, interval.high))
    return f"{value} ({low} to {high})"


def _plain(interval: Interval) -> str:
    return f"{number(interval.value)} ({number(interval.low)} to {number(interval.high)})"


def _share(interval: Interval) -> str:
    return f"{interval.value:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
