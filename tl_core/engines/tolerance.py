"""How far two engines of one precision class may be apart."""

from __future__ import annotations

import numpy as np

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.2}
"""Largest distance of two rows of a class, as a share of the row's length: |a - b| / |b|, a cosine of 0.98 in
bfloat16. That far may an engine be from torch in float32, too, or it is not used.

What was seen stands in benchmarks/results/engines_apart.md: up to 0.08 on MobileNets with weights made for 8 bits,
0.021 elsewhere; 16 other photos gave 0.105.
"""


def disagreement(stored: np.ndarray, computed: np.ndarray, precision: str) -> str | None:
    """How two rows [D] differ, in words, where it is by more than the class allows; None where they agree."""
    if stored.shape != computed.shape:
        return f"{stored.size} values, {computed.size} now"
    a, b = stored.astype(np.float64), computed.astype(np.float64)
    apart = float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-12))
    allowed = TOLERANCE[precision]
    return None if apart <= allowed else f"by {apart:.2g} of their length, allowed is {allowed:g}"
