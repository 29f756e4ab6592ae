"""The image plugin keeps tl's contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tl_image
from PIL import Image

from tl_core import BackboneSpec
from tl_core.testing import ModalityContract


class TestImage(ModalityContract):
    @pytest.fixture
    def plugin(self) -> ModuleType:
        return tl_image

    @pytest.fixture
    def good(self, tmp_path: Path, photo: Callable[..., np.ndarray]) -> list[Path]:
        paths = [tmp_path / name for name in ("a.jpg", "b.png", "c.webp", "d.gif")]
        for seed, path in enumerate(paths):
            Image.fromarray(photo(50 + seed, 70, seed=seed)).save(path)
        return paths

    @pytest.fixture
    def bad(self, tmp_path: Path, good: list[Path]) -> dict[str, Path]:
        contents = {
            "empty file": b"",
            "truncated JPEG": good[0].read_bytes()[:-200],
            "a PDF document": b"%PDF-1.7 ...",
            "a text": b"not a picture at all",
        }
        paths = {}
        for number, (reason, content) in enumerate(contents.items()):
            paths[reason] = tmp_path / f"bad{number}.jpg"
            paths[reason].write_bytes(content)
        return {**paths, "can't be opened": tmp_path / "missing.jpg"}

    @pytest.fixture
    def backbone(self, timm_folder: Callable[..., Path]) -> BackboneSpec:
        [spec] = tl_image.tl_resolve_backbone(name=str(timm_folder()), modality="image")
        return spec
