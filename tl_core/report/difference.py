"""A fact in which two versions of a model differ."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """A fact by its name, and what it is in each version as people write it."""

    key: str
    first: str
    second: str
