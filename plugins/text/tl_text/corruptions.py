"""What goes wrong with texts on their way from a keyboard to a model, at five severities.

Each harms a share of the letters, words or marks. The same generator harms at a higher severity what it harmed at a
lower one, and more; a text never comes out blank.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from tl_core import Corrupt

_TYPOS = (0.02, 0.05, 0.1, 0.15, 0.25)  # of the letters
_DROPPED = (0.05, 0.1, 0.2, 0.3, 0.4)  # of the words
_SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)  # of words or marks, where a text stays readable without any

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_PIECES = re.compile(r"\s+|\S+")


def typos(text: str, severity: int, rng: np.random.Generator) -> str:
    """Letters swapped with the next one, left out, doubled, or mistaken for a neighbour on the keyboard."""
    hit, kind, choice = rng.random((3, len(text)))
    letters = list(text)
    for i, letter in enumerate(text):
        if hit[i] >= _TYPOS[severity - 1] or not letter.isalpha():
            continue
        near = _NEIGHBOURS.get(letter.lower(), "")
        if kind[i] < 0.25:
            letters[i] = ""
        elif kind[i] < 0.5:
            letters[i] = letter * 2
        elif kind[i] < 0.75 and near:
            other = near[int(choice[i] * len(near))]
            letters[i] = other.upper() if letter.isupper() else other
        elif i + 1 < len(text) and text[i + 1].isalpha():
            letters[i], letters[i + 1] = letters[i + 1], letter
    return _unless_blank("".join(letters), text)


def capitals(text: str, severity: int, rng: np.random.Generator) -> str:
    """Words typed with the caps lock on."""
    return _words(text, _SHARES[severity - 1], rng, str.upper)


def lower_case(text: str, severity: int, rng: np.random.Generator) -> str:
    """Words without their capitals."""
    return _words(text, _SHARES[severity - 1], rng, str.lower)


def lost_marks(text: str, severity: int, rng: np.random.Generator) -> str:
    """Punctuation and accents left out."""
    pieces = unicodedata.normalize("NFD", text)
    hit = rng.random(len(pieces)) < _SHARES[severity - 1]
    kept = (mark for mark, gone in zip(pieces, hit) if not (gone and _is_mark(mark)))
    return _unless_blank(unicodedata.normalize("NFC", "".join(kept)), text)


def lost_words(text: str, severity: int, rng: np.random.Generator) -> str:
    """Words left out."""
    words = re.findall(r"\S+\s*", text)
    gone = rng.random(len(words)) < _DROPPED[severity - 1]
    return _unless_blank("".join(word for word, lost in zip(words, gone) if not lost), text)


def _words(text: str, share: float, rng: np.random.Generator, change: Callable[[str], str]) -> str:
    """The text with a share of its words changed, each by the toss of a coin."""
    pieces: Iterable[str] = _PIECES.findall(text)
    return "".join(change(piece) if rng.random() < share and not piece.isspace() else piece for piece in pieces)


def _is_mark(letter: str) -> bool:
    """Punctuation, or an accent that stands apart from its letter."""
    return unicodedata.category(letter)[0] == "P" or unicodedata.category(letter) == "Mn"


def _unless_blank(text: str, former: str) -> str:
    return text if any(letter.isprintable() and not letter.isspace() for letter in text) else former


def _neighbours() -> dict[str, str]:
    """The letters beside, above and below each one on an English keyboard, whose rows are offset by half a key."""
    near: dict[str, str] = {}
    for r, row in enumerate(_ROWS):
        for c, letter in enumerate(row):
            places = ((r, c - 1), (r, c + 1), (r - 1, c), (r - 1, c + 1), (r + 1, c - 1), (r + 1, c))
            near[letter] = "".join(_ROWS[y][x] for y, x in places if 0 <= y < len(_ROWS) and 0 <= x < len(_ROWS[y]))
    return near


_NEIGHBOURS = _neighbours()
CORRUPTIONS: Mapping[str, Corrupt] = {
    "typos": typos,
    "capitals": capitals,
    "lower case": lower_case,
    "lost punctuation and accents": lost_marks,
    "lost words": lost_words,
}
