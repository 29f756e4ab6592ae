"""Texts come through as they are, and the report shows them safely."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tl_text.loader import TextLoader

LOADER = TextLoader()


def test_text_is_kept_as_it_is(tmp_path: Path) -> None:
    text = "  Cafe\u0301 \r\n NOT ok 😀 "
    assert LOADER.decode(text) == text
    for mark in (b"", b"\xef\xbb\xbf"):
        path = tmp_path / f"{len(mark)}.txt"
        path.write_bytes(mark + text.encode())
        assert LOADER.decode(path) == text


def test_offset_of_a_bad_byte_counts_the_mark(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(b"\xef\xbb\xbfok \xff")
    assert LOADER.check(path) == "not UTF-8: byte 0xff at offset 6"


def test_a_new_emoji_or_any_script_is_a_text() -> None:
    assert [LOADER.check(text) for text in ("👍", "好", "؟", "7", "\U0001faef")] == [None] * 5


def test_augment_is_the_identity() -> None:
    assert LOADER.augment("not good", np.random.default_rng(0)) == "not good"


def test_render_escapes_and_cuts() -> None:
    assert LOADER.render("<script>&\"'") == '<p class="text">&lt;script&gt;&amp;&quot;&#x27;</p>'
    long = LOADER.render("ab " * 400)
    assert long.endswith("…</p>")
    assert len(long) < 530
