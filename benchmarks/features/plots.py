"""Results as SVG pictures: bars of rates over the rival's, and memory over a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from benchmarks.features.tables import number, ordered

WIDTH, LEFT, RIGHT, TOP = 760, 250, 60, 40
BAR, GAP = 18, 22
OURS, RIVAL, LINE, GRID = "#1f6fb4", "#8a8a8a", "#c9a227", "#e4e4e4"
LABEL = 100  # pixels that a bar's label takes


def rates(cases: Mapping[str, Mapping[str, Any]], rival: str, title: str) -> str:
    """A bar a contender, as a multiple of the rival's rate, with a mark where the forward alone lies."""
    bars: list[tuple[str, str, float, float | None, float]] = []
    for name, found in cases.items():
        works = found["works"]
        if rival not in works:
            continue
        base = works[rival]["per_second"]
        for contender in ordered(found):
            forward = works.get(f"{contender}/forward") if contender in found["ratios"] else None
            rate = works[contender]["per_second"]
            bars.append((name, contender, rate / base, forward["per_second"] / base if forward else None, rate))
    most = max((max(value, ceiling or 0) for _, _, value, ceiling, _ in bars), default=1.0)
    lines: list[str] = []
    y, last = TOP, ""
    for name, contender, value, ceiling, rate in bars:
        if name != last:
            y += GAP if last else 0
            lines.append(_text(LEFT - 12, y + 12, name, "end", weight="bold"))
            y, last = y + BAR, name
        colour = OURS if contender in cases[name]["ratios"] else RIVAL
        end = _x(value, most)
        label = end if ceiling is None or _x(ceiling, most) - end > LABEL else max(end, _x(ceiling, most))
        lines += [
            _text(LEFT - 12, y + 13, contender, "end"),
            f'<rect x="{LEFT}" y="{y + 2}" width="{round(end - LEFT, 1)}" height="{BAR - 4}" fill="{colour}"/>',
            _text(label + 6, y + 13, f"{value:.1f}x ({number(rate)}/s)", "start"),
        ]
        if ceiling is not None:
            at = _x(ceiling, most)
            lines.append(f'<path d="M{at} {y}V{y + BAR}" stroke="{LINE}" stroke-width="3"/>')
        y += BAR
    legend = [
        _text(LEFT, 22, title, "start", weight="bold"),
        f'<path d="M{WIDTH - 190} 12V26" stroke="{LINE}" stroke-width="3"/>',
        _text(WIDTH - 182, 22, "forward alone, same engine", "start"),
    ]
    return _svg(y + 12, [*legend, *lines])


def memory(cases: Mapping[str, Mapping[str, Any]]) -> str:
    """Resident memory over the share of a run, the many samples' line above that of the few where memory grows."""
    height, panel = 190, 150
    lines: list[str] = []
    colours = (RIVAL, OURS)
    for number_, (name, found) in enumerate(cases.items()):
        top = TOP + number_ * height
        most = max((point[1] for run in found["runs"] for point in run["curve"]), default=1.0) * 1.1
        lines.append(_text(LEFT - 160, top + 4, name, "start", weight="bold"))
        for share in (0.0, 0.5, 1.0):
            y = round(top + panel - share * panel, 1)
            lines += [
                f'<path d="M{LEFT - 60} {y}H{WIDTH - RIGHT}" stroke="{GRID}"/>',
                _text(LEFT - 66, y + 4, f"{share * most:,.0f} MiB", "end"),
            ]
        for run, colour in zip(found["runs"], colours):
            curve: Sequence[Sequence[float]] = run["curve"]
            if not curve:
                continue
            end = curve[-1][0] or 1.0
            points = " ".join(
                f"{round(LEFT - 60 + seconds / end * (WIDTH - RIGHT - LEFT + 60), 1)},"
                f"{round(top + panel - mib / most * panel, 1)}"
                for seconds, mib, _ in curve
            )
            lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
    sizes: Sequence[Mapping[str, Any]] = next((found["runs"] for found in cases.values()), [])
    for i, (run, colour) in enumerate(zip(sizes, colours)):
        lines += [
            f'<path d="M{LEFT + 170 * i} 18H{LEFT + 20 + 170 * i}" stroke="{colour}" stroke-width="2"/>',
            _text(LEFT + 26 + 170 * i, 22, f"{run['samples']:,} samples", "start"),
        ]
    bottom = TOP + height * len(cases)
    lines.append(_text((LEFT - 60 + WIDTH - RIGHT) // 2, bottom - 16, "share of the process's life", "middle"))
    return _svg(bottom, lines)


def _svg(height: float, lines: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>', *lines, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str, weight: str = "normal") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'


def _x(value: float, most: float) -> float:
    return round(LEFT + value / most * (WIDTH - LEFT - RIGHT - 70), 1)
