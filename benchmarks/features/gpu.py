"""Images, texts and sounds on a CUDA device, measured as on the CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.features import images, sounds, texts
from benchmarks.features.setting import Setup, say

CASES = (*images.CASES, *texts.CASES, *sounds.CASES)


def measure(case: str, setup: Setup) -> dict[str, Any]:
    """The case's numbers; `missing` says why there are none where torch sees no GPU."""
    import torch

    if not torch.cuda.is_available():
        missing = f"no GPU here: torch {torch.__version__} sees no CUDA device"
        say(f"  {missing}")
        return {"missing": missing}
    here = replace(setup, device="cuda")
    if case in images.CASES:
        return images.measure(case, here)
    return texts.measure(case, here) if case in texts.CASES else sounds.measure(case, here)
