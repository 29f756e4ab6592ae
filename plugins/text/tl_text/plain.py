"""What can be said of a text without a network: its words, pairs of words and pieces of words."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

LENGTHS = (3, 4, 5)  # letters of a piece
PIECE = 0.25  # of a word: there are more of them, and they say less
MOST_CHARACTERS = 20_000  # of a text: a novel says no more about its kind than its first pages

_WORD = re.compile(r"\w+|[^\w\s]")


def plain(text: str) -> dict[str, float]:
    """How often each term occurs, in lower case; a mark of punctuation is a word, `#` begins a piece of a word.

    A word's ends belong to its pieces: `#<card`, `#ards>`.
    """
    words = _WORD.findall(text[:MOST_CHARACTERS].lower())
    bounded = [f"<{word}>" for word in words]
    pieces = Counter(word[i : i + n] for word in bounded for n in LENGTHS for i in range(len(word) - n + 1))
    terms = Counter([*words, *(f"{a} {b}" for a, b in pairwise(words))])
    return {**terms, **{f"#{piece}": PIECE * count for piece, count in pieces.items()}}
