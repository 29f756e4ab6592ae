"""From numbers to places along a picture's edge, without any library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Maps numbers to percent of a length; beyond its ends is drawn at the end."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, here = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return round(min(max((here - low) / (high - low), 0.0), 1.0) * 100, 2)

    def ticks(self, count: int = 5) -> list[tuple[float, str]]:
        """(percent, text) at round numbers."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            stride = max(1, math.ceil((last - first + 1) / (count + 2)))
            return [(self.at(10.0**e), _text(10.0**e)) for e in range(first, last + 1, stride)]
        step = _round_step((self.high - self.low) / count)
        lowest, highest = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(self.at(i * step), _text(i * step)) for i in range(lowest, highest + 1)]


def _text(value: float) -> str:
    """A tick's number: short where it is small, as along the left edge there is little room."""
    text = f"{value:.6g}" if abs(value) >= 1e-3 or not value else f"{value:.3g}"
    if 0 < abs(value) < 1e-3 and "e" not in text:
        mantissa, _, power = f"{value:.2e}".partition("e")
        text = f"{float(mantissa):g}e{int(power)}"
    return text.replace("e-0", "e-").replace("e+0", "e+")


def fitting(values: Sequence[float]) -> Scale:
    """A scale with a little air around the values."""
    low, high = min(values), max(values)
    air = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    return Scale(low - air, high + air)


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return power * next(nice for nice in (1, 2, 2.5, 5, 10) if step <= nice * power * (1 + 1e-9))
