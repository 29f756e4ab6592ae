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


class SampleChanged(UserError):  # noqa: N818 - named for what happened
    """A sample is no longer what it was when it was checked: a fault of the data, whichever backbone met it."""


class FormatError(UserError):
    """A stored file is of a newer format version than this tl reads, or is damaged."""


def did_you_mean(name: str, allowed: Iterable[str], limit: int = 3) -> str:
    """`"; did you mean a, b?"` for the nearest allowed names, or an empty string.

    A part of a name counts too: the model in `owner/model`, the architecture in `architecture.weights`.
    """
    parts: dict[str, str] = {}
    for full in sorted(set(allowed)):
        for part in (full, full.rpartition("/")[2], full.partition(".")[0]):
            parts.setdefault(part, full)
    near = [part for part in parts if name and part.startswith(name)]
    near += difflib.get_close_matches(name, parts, n=2 * limit, cutoff=0.6)
    names = list(dict.fromkeys(parts[part] for part in near))[:limit]
    return f"; did you mean {', '.join(names)}?" if names else ""
