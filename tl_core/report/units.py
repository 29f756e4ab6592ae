"""Differences between metrics, in the unit that people tell them in."""

from __future__ import annotations

from tl_core.report.templates import number

_OWN_UNIT = ("mae", "rmse")  # of the target; everything else but R² is a share


def unit_of(metric: str) -> str:
    """What differences of a metric are told in: points (hundredths) of a share, R², or the target's own unit ("")."""
    return "R²" if metric == "r2" else "" if metric in _OWN_UNIT else "points"


def difference(value: float, metric: str) -> str:
    """A difference between two values of a metric in its unit, without the unit's name."""
    return f"{100 * value + 0:.1f}".replace("-", "−") if unit_of(metric) == "points" else number(value)


def amount(value: float, metric: str, title: str = "") -> str:
    """A difference with its unit: `0.8 points`, `0.8 points of accuracy` (with a title), `0.008 of R²`."""
    unit = unit_of(metric)
    if unit != "points":
        return f"{difference(value, metric)} of {unit}" if unit else difference(value, metric)
    return f"{difference(value, metric)} points of {title}" if title else f"{difference(value, metric)} points"
