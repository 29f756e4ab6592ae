"""What spoke for an output of a model, over the parts of one sample, and how a plugin shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_HEAT = (213, 94, 0)  # red, green, blue
_STRONGEST = 0.8  # share of that colour at the peak
_UNSEEN = 0.6  # brightness of what the model does not see


@dataclass(frozen=True, eq=False)
class Heat:
    """One window of a sample. values: float32 [H, W], above 0 where the place spoke for the output, below 0 against.

    place: what of the sample the values stand for, as `Backbone.places` gave it; only the plugin reads it.
    """

    values: np.ndarray
    place: Any


@dataclass(frozen=True, eq=False)
class Saliency:
    """What spoke for one output, in one sample.

    label: the class, None in regression; score: its probability, or the predicted value; heats: the sample's windows
    in order, whose values compare with each other; method: how they were found, in words for people.
    """

    label: str | None
    score: float
    heats: Sequence[Heat]
    method: str

    @property
    def title(self) -> str:
        """`pizza, 0.81`, or `value 3.2`."""
        return f"value {self.score:.4g}" if self.label is None else f"{self.label}, {self.score:.2f}"

    @property
    def peak(self) -> float:
        """The largest value by size, what colours are scaled by; 1 where all are 0."""
        return max((float(np.abs(heat.values).max(initial=0)) for heat in self.heats), default=0.0) or 1.0


def coloured(grey: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture in greys, coloured by the heat above 0 and outlined at half of its peak; dark where there is none.

    grey: [H, W], 0 to 255; heat: float32 [H, W], not a number where the model sees nothing. uint8 [H, W, 3]. The
    colour, a vermillion, is told from greys with any colour vision, and the outline needs none.
    """
    base = np.repeat((0.25 * 255 + 0.75 * grey.astype(np.float32))[..., None], 3, axis=2)  # the colour shows in shadows
    share = np.nan_to_num(heat).clip(min=0)
    share = share / max(float(share.max()), 1e-12)
    mixed = base + (np.array(_HEAT, np.float32) - base) * (_STRONGEST * share)[..., None]
    inside = np.pad(share >= 0.5, 1)
    core = inside[1:-1, :-2] & inside[1:-1, 2:] & inside[:-2, 1:-1] & inside[2:, 1:-1]
    mixed[inside[1:-1, 1:-1] & ~core] = 255
    mixed[np.isnan(heat)] *= _UNSEEN
    return np.asarray(np.rint(mixed).clip(0, 255), np.uint8)


@dataclass(frozen=True)
class Overlay:
    """A sample with its saliencies. html: a self-contained fragment; texts: of each one where it lies, in words."""

    html: str
    texts: tuple[str, ...]
