"""Adapters in every family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tl_text

from tl_core.testing import assert_adapters

from .conftest import FAMILIES

TEXTS = ["my card is not working", "refund", "the app is slow", "where is it"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str, make_folder: Callable[..., Path]) -> None:
    [spec] = tl_text.tl_resolve_backbone(name=str(make_folder(family)), modality="text")
    built = spec.build()
    assert assert_adapters(spec, [built.prepare(text).windows[0] for text in TEXTS])
