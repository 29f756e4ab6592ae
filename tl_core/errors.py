"""The few exception types that tl raises on purpose."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user gave can't be used; the text says what, what is allowed and the remedy.

    The command prints it as one line (or one line a fault) and exits with 2, without a traceback.
    """


class DecodeError(Exception):
    """A source can't be decoded; the text is the reason that lands in quarantine.csv."""


class FormatError(UserError):
    """A stored file is of a newer format version than this tl reads, or is damaged."""


def did_you_mean(name: str, allowed: Iterable[str], limit: int = 3) -> str:
    """`"; did you mean a, b?"` for the nearest allowed names, or an empty string."""
    names = sorted(set(allowed))
    near = [n for n in names if name and n.startswith(name)]
    near += [n for n in difflib.get_close_matches(name, names, n=limit, cutoff=0.6) if n not in near]
    return f"; did you mean {', '.join(near[:limit])}?" if near else ""
