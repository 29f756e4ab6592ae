"""What an explained text shows: whole words, marked by strength and sign, escaped."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tl_text
import torch
from tl_text import overlay
from tl_text.loader import TextLoader

from tl_core import Heat, Saliency, Targets, linear_heads
from tl_core.explain import explain
from tl_core.extraction import embed


def saliency(values: list[float], spans: list[tuple[int, int]], label: str = "refund") -> Saliency:
    return Saliency(label, 0.9, (Heat(np.array([values], np.float32), spans),), "a test")


def test_tokens_are_joined_to_words() -> None:
    text = "Unhappy: don't  <b>pay</b>!"
    spans = [(0, 0), (0, 2), (2, 7), (7, 8), (9, 12), (12, 13), (13, 14), (16, 17), (17, 18), (18, 19), (0, 0)]
    words = overlay.words_of(text, Heat(np.arange(11, dtype=np.float32)[None], spans))
    assert [(text[w.start : w.stop], w.value) for w in words][:3] == [("Unhappy", 3.0), (":", 3.0), ("don", 4.0)]


def test_byte_level_tokens_hold_spaces_and_share_letters() -> None:
    text = "so good 🙂"
    heat = Heat(np.array([[1, 2, 3, 4]], np.float32), [(0, 2), (2, 7), (7, 9), (8, 9)])
    assert [(text[w.start : w.stop], w.value) for w in overlay.words_of(text, heat)] == [
        ("so", 1),
        ("good", 2),
        ("🙂", 7),
    ]


def test_scripts_without_spaces_stay_apart() -> None:
    text = "很好看"
    heat = Heat(np.array([[1, 2, 3]], np.float32), [(0, 1), (1, 2), (2, 3)])
    assert len(overlay.words_of(text, heat)) == 3


def test_a_word_of_thousands_of_letters_is_told_by_its_first() -> None:
    heat = Heat(np.ones((1, 1), np.float32), ((0, 100_000),))
    found = TextLoader().overlay("a" * 100_000, [Saliency("x", 0.5, (heat,), "a test")])
    assert found.texts == (f"for it: “{'a' * 39}…”",)
    assert len(found.html) < 500


def test_marks_say_strength_and_sign_in_colour_and_line() -> None:
    text = "<i>pay & go</i> now"
    spans = [(0, 3), (3, 6), (7, 8), (9, 11), (11, 15), (16, 19)]
    found = TextLoader().overlay(text, [saliency([0.0, 2.0, 0.01, -1.0, 0, 0.3], spans, "<x>")])
    assert 'background:rgba(0,114,178,0.60)" title="+1.00">pay</mark>' in found.html
    assert 'background:rgba(213,94,0,0.30);text-decoration:underline dotted" title="-0.50">go</mark>' in found.html
    assert "&lt;i&gt;" in found.html
    assert "&amp;" in found.html
    assert "<i>" not in found.html
    assert "<x>" not in found.html
    assert found.texts == ("for it: “pay”, “now”; against it: “go”",)


def test_what_was_not_read_is_told_and_long_texts_are_cut() -> None:
    found = TextLoader().overlay("one two three four", [saliency([1.0, 0.5], [(0, 3), (4, 7)])])
    assert "two</mark> <em>… the model reads no further (10 more characters)</em>" in found.html
    text = "word " * 2000
    spans = [(5 * i, 5 * i + 4) for i in range(2000)]
    long = TextLoader().overlay(text, [saliency([1.0] * 2000, spans), saliency([-1.0] * 2000, spans)])
    assert len(long.html) < 100_000
    assert "reads no further" not in long.html


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_a_text_is_explained_by_its_words(family: str, make_folder: Callable[..., Path]) -> None:
    """From raw text to marks, in a chain of segments and in a network of one piece."""
    (spec,) = tl_text.tl_resolve_backbone(name=str(make_folder(family)), modality="text")
    targets = Targets("multiclass", ("a", "b"))
    head: Any = next(h for h in linear_heads("text") if h.task == "multiclass").build(16, targets)
    torch.nn.init.normal_(head.linear.weight, generator=torch.Generator().manual_seed(0))
    backbone = spec.build()
    embed(backbone, [backbone.prepare("my card")], torch.device("cpu"), "float32")  # in inference mode, as before it
    model = SimpleNamespace(loader=TextLoader(), backbone=backbone, head=head.eval(), targets=targets)
    found = explain(model, "my card is not working", ["a", "b"])
    assert found.error is None
    assert {text[:3] for text in found.texts} <= {"for", "aga"}
    assert "card" in re.sub(r"<[^>]+>", "", found.html)
    (spans,) = backbone.places("my card")
    assert spans[1:3] == [(0, 2), (3, 7)]
    blank = backbone.blank(backbone.prepare("my card").windows[0])["x"].tolist()
    assert blank == [2, 0, 0, 3]
