"""Every family is computed alike by every engine on this CPU: whole in float32, to an inner cut in bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tl_text

from tl_core.engines.conversion import openvino_version
from tl_core.testing import assert_engines_agree

from .conftest import FAMILIES

TEXTS = ["my card is not working", "refund please", "where is it ?"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str, precision: str, make_folder: Callable[..., Path]) -> None:
    (spec,) = tl_text.tl_resolve_backbone(name=str(make_folder(family)), modality="text")
    backbone = spec.build()
    windows = [prepared.windows[0] for prepared in backbone.prepare_many(TEXTS)]
    stop = None if precision == "float32" else len(backbone.segments) // 2
    engines = assert_engines_agree(backbone, windows, precision, stop)
    assert len(engines) == (2 if openvino_version() else 1), f"only {engines} take it"
