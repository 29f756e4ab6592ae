"""What is looked at in a text, and which texts a backbone does not suit: too long ones, and other languages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from tl_core import BackboneSpec, Facts, FitWarning
from tl_text.languages import NAMES, SCRIPTS, codes_of, language_of, script_of

LONG_SHARE = 0.1  # of texts past the window: with fewer, what is cut hardly moves a ranking
FOREIGN_SHARE = 0.1  # of texts in another language: with fewer, the others decide
LEAST_TOLD = 10  # texts that show their language, before anything is said of it
ONE_LANGUAGE = 0.8  # share of the foreign texts that may be named for all of them
OFFERED = 2  # backbones that a remedy names

# characters a token, for an estimate without any tokenizer; where not measured, rounded up so as not to warn too soon
_OWN = 4.3  # questions, chats and reviews in English by BERT's uncased tokenizer: 4.2 to 4.5
_FOREIGN = 3.2  # news in French by that tokenizer, which was made for English
_UNKNOWN_SCRIPT = 1.2  # Cyrillic, Arabic, Greek and Chinese by that tokenizer: it hardly knows a word
_IDEOGRAPHS = 1.5  # tokenizers made for Chinese, Japanese and Korean
_ALPHABETS = 3.5  # tokenizers made for any other script
_IDEOGRAPHIC = ("Chinese", "Japanese", "Korean")

Catalogue = Callable[[], Sequence[BackboneSpec]]
"""Where backbones that suit better are looked for."""


def measure(text: str) -> Facts:
    """Characters and words; script, and language (ISO 639-1) of Latin ones, where they show."""
    facts: dict[str, float | str] = {"characters": len(text), "words": len(text.split())}
    script = script_of(text)
    if script is not None:
        facts["script"] = script
    language = language_of(text) if script == "Latin" else None
    if language is not None:
        facts["language"] = language
    return facts


def misfits(spec: BackboneSpec, facts: Sequence[Facts], catalogue: Catalogue) -> list[FitWarning]:
    """Texts past the window, and texts in languages that the backbone has not learnt."""
    told = Counter(shown for fact in facts if (shown := _shown(fact)) is not None)
    return [*_length(spec, facts, told, catalogue), *_language(spec, told, catalogue)]


def _length(spec: BackboneSpec, facts: Sequence[Facts], told: Counter[str], catalogue: Catalogue) -> list[FitWarning]:
    window = spec.takes.get("tokens")
    if not window:
        return []
    unknown = _unlearnt(spec, told)
    characters = np.array([float(fact["characters"]) for fact in facts])
    a_token = np.array([_characters_a_token(fact, unknown) for fact in facts])
    long = characters > window * a_token
    if long.mean() < LONG_SHARE:
        return []
    longest = float(np.quantile(characters / a_token, 0.9))
    longer = [other for other in catalogue() if other.takes.get("tokens", 0) >= longest and not _foreign(other, told)]
    longer.sort(key=lambda other: (other.takes["tokens"], other.params or 0))
    first = float(np.median(a_token[long])) * window
    share = _about(float(long.mean()))
    return [
        FitWarning(
            "text length",
            f"{share} of the texts are longer than the {window:,} tokens that go in; the rest is cut",
            f"{_choice(longer)}put what decides the label into the first {round(first, -2):,.0f} characters",
        )
    ]


def _language(spec: BackboneSpec, told: Counter[str], catalogue: Catalogue) -> list[FitWarning]:
    foreign = _foreign(spec, told)
    if not foreign:
        return []
    [(most, count)] = foreign.most_common(1)
    named = NAMES.get(most, most)
    mostly = named if count >= ONE_LANGUAGE * foreign.total() else f"foreign, mostly {named}"
    learnt = " and ".join(NAMES.get(code, code) for code in sorted(_learnt(spec)))
    better = [other for other in catalogue() if other.takes.get("languages") and not _foreign(other, told)]
    better.sort(key=lambda other: ("many" in other.takes["languages"], other.params or 0))
    return [
        FitWarning(
            "language",
            f"{_about(foreign.total() / told.total())} of the texts look {mostly}; the pretraining was {learnt}",
            f"{_choice(better)}translate them first",
        )
    ]


def _foreign(spec: BackboneSpec, told: Counter[str]) -> Counter[str]:
    """Texts by language or script, of those that the backbone has not learnt; none where that can't be said."""
    foreign = Counter({shown: told[shown] for shown in sorted(_unlearnt(spec, told))})
    enough = told.total() >= LEAST_TOLD and foreign.total() >= FOREIGN_SHARE * told.total()
    return foreign if enough else Counter()


def _unlearnt(spec: BackboneSpec, told: Counter[str]) -> set[str]:
    """The languages and scripts among these that the backbone is known not to have learnt."""
    learnt = _learnt(spec)
    codes = {shown: SCRIPTS.get(shown) or codes_of(shown) for shown in told}
    return {shown for shown in told if learnt and learnt.isdisjoint(codes[shown])}


def _learnt(spec: BackboneSpec) -> set[str]:
    """Codes of the languages that the backbone is known to be limited to; none where it is not."""
    languages = set(spec.takes.get("languages") or ())
    return set() if "many" in languages else languages - {"code"}


def _shown(fact: Facts) -> str | None:
    """The language of a text in Latin script, the script of another; None where they don't show."""
    shown = fact.get("language") if fact.get("script") == "Latin" else fact.get("script")
    return None if shown is None else str(shown)


def _characters_a_token(fact: Facts, unknown: set[str]) -> float:
    script, foreign = fact.get("script", "Latin"), _shown(fact) in unknown
    if script == "Latin":
        return _FOREIGN if foreign else _OWN
    if foreign:
        return _UNKNOWN_SCRIPT
    return _IDEOGRAPHS if script in _IDEOGRAPHIC else _ALPHABETS


def _about(share: float) -> str:
    return "nearly all" if share > 0.99 else f"about {share:.0%}"


def _choice(specs: Sequence[BackboneSpec]) -> str:
    names = " or ".join(spec.name for spec in specs[:OFFERED])
    return f"choose {names}, or " if names else ""
