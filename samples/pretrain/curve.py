"""A pretraining's curve as an SVG image."""

from __future__ import annotations

from collections.abc import Sequence

_WIDTH, _HEIGHT, _MARGIN = 640, 320, 48


def draw_curve(rows: Sequence[dict[str, float]], steps: int) -> str:
    """Loss (left axis) and share of labels hit (right axis, 0 to 1) over steps; rows: step, loss, hits."""
    top = max((row["loss"] for row in rows), default=1.0)
    bottom = min((row["loss"] for row in rows), default=0.0)
    span = (top - bottom) or 1.0
    loss = _line([(row["step"] / steps, (row["loss"] - bottom) / span) for row in rows], "#2166ac")
    hits = _line([(row["step"] / steps, row["hits"]) for row in rows], "#b2182b")
    right, low = _WIDTH - _MARGIN, _HEIGHT - _MARGIN
    middle = _WIDTH // 2
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" font-family="sans-serif" font-size="12">
<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>
<path d="M{_MARGIN} {_MARGIN}V{low}H{right}V{_MARGIN}" fill="none" stroke="#999"/>
{loss}
{hits}
<g fill="#2166ac" text-anchor="end">
<text x="{_MARGIN - 6}" y="{_MARGIN + 4}">{top:.2f}</text>
<text x="{_MARGIN - 6}" y="{low}">{bottom:.2f}</text>
</g>
<g fill="#b2182b">
<text x="{right + 6}" y="{_MARGIN + 4}">1</text>
<text x="{right + 6}" y="{low}">0</text>
</g>
<text x="{_MARGIN}" y="{_MARGIN - 16}" fill="#2166ac">loss</text>
<text x="{right}" y="{_MARGIN - 16}" fill="#b2182b" text-anchor="end">share of labels hit</text>
<text x="{middle}" y="{low + 28}" text-anchor="middle">{steps} steps</text>
</svg>
"""


def _line(points: Sequence[tuple[float, float]], colour: str) -> str:
    width, height = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
    text = " ".join(f"{_MARGIN + x * width:.1f},{_HEIGHT - _MARGIN - y * height:.1f}" for x, y in points)
    return f'<polyline points="{text}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
