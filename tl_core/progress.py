"""Progress bars: rate and ETA on a terminal, silence elsewhere."""

from __future__ import annotations

from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(total: int | None, label: str, unit: str = "it", shown: bool = True) -> tqdm[T]:
    """A bar on standard error that shows rate and time left; nothing where standard error is no terminal."""
    disable = None if shown else True  # None: tqdm asks the terminal
    scaled = unit == "B"  # bytes by the thousand and million
    return tqdm(total=total, desc=label, unit=unit, unit_scale=scaled, disable=disable, leave=False, dynamic_ncols=True)
