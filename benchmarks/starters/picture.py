"""The probe's table as an SVG picture: a line a data set, a mark with its interval for each set of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, LEFT, RIGHT, ROW, TOP = 760, 130, 20, 58, 56
OFFSETS = (-15, 0, 15)  # pixels from the row's middle: random weights, the starter, real weights
COLOURS = ("#8a8a8a", "#1f6fb4", "#c9a227")


def picture(part: Mapping[str, Any]) -> str:
    """One modality's probe results as SVG."""
    rows = part["probe"]
    height = TOP + ROW * len(rows) + 34
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    names = ("random weights", part["backbone"], "real pretrained weights")
    for i, (name, colour) in enumerate(zip(names, COLOURS)):
        if i < 2 or any(row["real"] for row in rows):
            lines += [
                f'<circle cx="{LEFT + 6 + 190 * i}" cy="20" r="4" fill="{colour}"/>',
                f'<text x="{LEFT + 16 + 190 * i}" y="24">{escape(name)}</text>',
            ]
    bottom = TOP + ROW * len(rows)
    for value in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        lines += [
            f'<path d="M{_x(value)} {TOP - 12}V{bottom}" stroke="#e4e4e4"/>',
            f'<text x="{_x(value)}" y="{bottom + 18}" text-anchor="middle">{value:.1f}</text>',
        ]
    for i, row in enumerate(rows):
        middle = TOP + ROW * i + ROW // 2 - 8
        lines.append(f'<text x="{LEFT - 12}" y="{middle + 4}" text-anchor="end">{escape(row["data"])}</text>')
        lines += _mark(row["theirs"], middle + OFFSETS[0], COLOURS[0])
        lines += _mark(row["ours"], middle + OFFSETS[1], COLOURS[1])
        for numbers in row["real"].values():
            lines += _mark(numbers, middle + OFFSETS[2], COLOURS[2])
    middle_of_plot = (LEFT + WIDTH - RIGHT) // 2
    lines.append(f'<text x="{middle_of_plot}" y="{bottom + 32}" text-anchor="middle">accuracy of the probe</text>')
    return "\n".join([*lines, "</svg>", ""])


def _mark(numbers: Sequence[float], y: int, colour: str) -> list[str]:
    value, low, high = (_x(number) for number in numbers)
    return [
        f'<path d="M{low} {y}H{high}" stroke="{colour}" stroke-width="3" stroke-opacity="0.5"/>',
        f'<circle cx="{value}" cy="{y}" r="4" fill="{colour}"/>',
    ]


def _x(value: float) -> float:
    return round(LEFT + value * (WIDTH - LEFT - RIGHT), 1)
