"""The text plugin keeps the contract of every modality."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import tl_text

from tl_core import BackboneSpec
from tl_core.testing import ModalityContract


class TestText(ModalityContract):
    @pytest.fixture
    def plugin(self) -> ModuleType:
        return tl_text

    @pytest.fixture
    def good(self, tmp_path: Path) -> list[str | Path]:
        file = tmp_path / "note.txt"
        file.write_text("Where is my order? <b>now</b>", encoding="utf-8")
        return ["my card is not working", "please cancel my order", "ça ne marche pas 😀", file]

    @pytest.fixture
    def bad(self, tmp_path: Path) -> dict[str, str | Path]:
        for name, data in (
            ("empty", b""),
            ("latin", "r\u00e9glage".encode("latin-1")),
            ("wide", "hi".encode("utf-16")),
        ):
            (tmp_path / f"{name}.txt").write_bytes(data)
        return {
            "empty text": "",
            "only whitespace": " \n\t\u00a0",
            "NUL character": "abc\0def",
            "only control characters": "\x07\x1b\u200b",
            "half of a surrogate pair": "sad \ud83d",
            "empty file": tmp_path / "empty.txt",
            "byte 0xe9 at offset 1": tmp_path / "latin.txt",
            "UTF-16": tmp_path / "wide.txt",
            "unreadable file": tmp_path / "missing.txt",
        }

    @pytest.fixture
    def backbone(self, make_folder: Callable[..., Path]) -> BackboneSpec:
        return tl_text.tl_resolve_backbone(name=str(make_folder("bert")), modality="text")[0]
