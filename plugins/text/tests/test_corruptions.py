"""Corruptions of texts do what their names say, and leave something to read."""

from __future__ import annotations

import numpy as np
import pytest
from tl_text.corruptions import CORRUPTIONS, capitals, lost_marks, lost_words, lower_case, typos
from tl_text.loader import TextLoader

TEXT = "Where is my new card? It hasn't arrived, and the café in Málaga won't take the old one. " * 20


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_typos_hit_the_stated_share_of_letters() -> None:
    text = "abcdefghij " * 500
    for severity, share in ((1, 0.02), (5, 0.25)):
        harmed = typos(text, severity, rng())
        assert len(harmed.split()) == 500
        intact = sum(word == "abcdefghij" for word in harmed.split()) / 500
        assert intact == pytest.approx((1 - share) ** 10, abs=0.05)


def test_a_mistaken_letter_lies_beside_the_right_one() -> None:
    harmed = typos("g" * 4000, 5, rng())
    assert set(harmed) <= set("gfhtyvb")
    assert set(typos("G" * 400, 5, rng())) <= set("GFHTYVB")
    assert set(typos("日" * 400, 5, rng())) == {"日"}  # not on the keyboard: swapped, doubled or left out


def test_case() -> None:
    assert capitals(TEXT, 5, rng()) == TEXT.upper()
    assert lower_case(TEXT, 5, rng()) == TEXT.lower()
    some = capitals(TEXT, 2, rng()).split()
    assert 0.25 < sum(word.isupper() for word in some) / len(some) < 0.55


def test_marks_are_lost() -> None:
    assert lost_marks(TEXT, 5, rng()).startswith("Where is my new card It hasnt arrived and the cafe in Malaga wont")
    half = lost_marks(TEXT, 3, rng())
    assert 0 < half.count("?") < TEXT.count("?")
    assert 0 < half.count("é") < TEXT.count("é")


def test_words_are_lost() -> None:
    words = lost_words(TEXT * 20, 5, rng()).split()
    assert len(words) / len((TEXT * 20).split()) == pytest.approx(0.6, abs=0.02)
    assert set(words) <= set(TEXT.split())
    assert "  " not in lost_words(TEXT, 3, rng())


def test_a_higher_severity_harms_what_a_lower_one_did() -> None:
    words = [f"w{i}" for i in range(100)]
    left = [set(lost_words(" ".join(words), severity, rng()).split()) for severity in (1, 3, 5)]
    assert left[0] > left[1] > left[2]


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
@pytest.mark.parametrize("text", ["a", "?", "¿¡...", " x ", "no", "e\u0301", "👍", "מה", "第一"])
def test_nothing_comes_out_blank(name: str, text: str) -> None:
    loader = TextLoader()
    for seed in range(20):
        for severity in (1, 5):
            assert loader.check(CORRUPTIONS[name](text, severity, rng(seed))) is None
