"""How an explained text is shown: its words, marked by how much they spoke for or against each class."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from tl_core import Heat, Overlay, Saliency

SHOWN = 1500  # characters of a text: a page of them for two classes is 60 kB of marks at most
NAMED = 3  # words that are told of either kind
LONGEST = 40  # characters told of a word: a web address or a file's base64 may have thousands
FAINT = 0.1  # of the strongest word, below which words stay unmarked
_FOR, _AGAINST = "0,114,178", "213,94,0"  # blue and vermillion, told apart with any colour vision
_STRONGEST = 0.6  # opacity: the words stay readable on light and on dark


@dataclass(frozen=True)
class Word:
    """A word or a run of punctuation, text[start:stop], and what its tokens add up to."""

    start: int
    stop: int
    value: float


def overlay(text: str, saliencies: Sequence[Saliency]) -> Overlay:
    """A paragraph for each saliency."""
    parts, texts = [], []
    for saliency in saliencies:
        words = words_of(text, saliency.heats[0])
        texts.append(told(text, words))
        parts.append(
            f'<div><p class="text">{_marked(text, words)}</p>'
            f"<p><small>{html.escape(saliency.title)}: {html.escape(texts[-1])}</small></p></div>"
        )
    return Overlay("".join(parts), tuple(texts))


def words_of(text: str, heat: Heat) -> list[Word]:
    """The text's words with what their tokens add up to.

    heat.values: [1, T]; heat.place: the span of each token. Tokens are joined where letters meet, but not in scripts
    that put no spaces between words.
    """
    words: list[Word] = []
    for (start, stop), value in zip(heat.place, heat.values[0].tolist()):
        start += len(text[start:stop]) - len(text[start:stop].lstrip())  # byte-level tokens hold the space before them
        stop = start + len(text[start:stop].rstrip())
        if start >= stop:  # a special token, or the prompt
            continue
        if words and (start < words[-1].stop or (start == words[-1].stop and _joined(text[start - 1], text[start]))):
            before = words.pop()
            start, stop, value = before.start, max(stop, before.stop), before.value + value
        words.append(Word(start, stop, value))
    return words


def told(text: str, words: Sequence[Word]) -> str:
    """The strongest words of either kind: `for it: “refund”, “card”; against it: “thanks”`."""
    strongest = max((abs(word.value) for word in words), default=0.0)
    clear = [word for word in words if abs(word.value) > FAINT * strongest]
    kinds = {
        "for it": sorted((w for w in clear if w.value > 0), key=lambda w: (-w.value, w.start)),
        "against it": sorted((w for w in clear if w.value < 0), key=lambda w: (w.value, w.start)),
    }
    named = {kind: dict.fromkeys(_short(text[w.start : w.stop]) for w in some) for kind, some in kinds.items()}
    parts = [f"{kind}: {', '.join(f'“{word}”' for word in list(some)[:NAMED])}" for kind, some in named.items() if some]
    return "; ".join(parts) or "no word of it"


def _short(word: str) -> str:
    return word if len(word) <= LONGEST else f"{word[: LONGEST - 1]}…"


def _joined(left: str, right: str) -> bool:
    """Whether two letters that meet belong to one word: those as wide as Chinese ones stand alone."""
    return all(char.isalnum() and unicodedata.east_asian_width(char) not in "WF" for char in (left, right))


def _marked(text: str, words: Sequence[Word]) -> str:
    """The text, escaped, with its words in marks; what was cut off is told."""
    strongest = max((abs(word.value) for word in words), default=0.0)
    parts, done = [], 0
    for word in words:
        if word.stop > SHOWN:
            break
        share = word.value / strongest if strongest else 0.0
        parts += [html.escape(text[done : word.start]), _mark(html.escape(text[word.start : word.stop]), share)]
        done = word.stop
    read = words[-1].stop if words else 0
    rest = text[done:].strip()
    if rest and done >= read:
        parts.append(f" <em>… the model reads no further ({len(rest):,} more characters)</em>")
    elif rest:
        parts.append("…")
    return "".join(parts)


def _mark(word: str, share: float) -> str:
    """share: of the strongest word, below 0 against the class: underlined as well, for who sees no colours."""
    if abs(share) < FAINT:
        return word
    colour, line = (_FOR, "") if share > 0 else (_AGAINST, ";text-decoration:underline dotted")
    style = f"color:inherit;background:rgba({colour},{_STRONGEST * abs(share):.2f}){line}"
    return f'<mark style="{style}" title="{share:+.2f}">{word}</mark>'
