"""mixup and cutmix: training on mixtures of two samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tl_core.config import TuneConfig
from tl_core.errors import UserError
from tl_core.types import Backbone, State

MIXUP = "set it to mixup or none"


@dataclass(frozen=True)
class Mixed:
    """How the samples of a batch were mixed: sample i with sample order[i], of which it holds 1 - share.

    order: int64 [B]; share: of a sample's own part, 0 to 1, the same for the whole batch.
    """

    order: Tensor
    share: float


class Mixer:
    """Mixes the windows of a batch's samples, one share drawn from Beta(alpha, alpha) for all of them.

    mixup: `share * a + (1 - share) * b` (Zhang et al., ICLR 2018, arXiv:1710.09412), between segments too (Verma et
    al., ICML 2019, arXiv:1806.05236). cutmix: a rectangle of a is replaced by b's, and the share is what is left of a
    (Yun et al., ICCV 2019, arXiv:1905.04899). places: the two dimensions of `x` that the rectangle lies in.
    """

    def __init__(self, kind: Literal["mixup", "cutmix"], alpha: float, places: tuple[int, int] = (2, 3)) -> None:
        self._kind, self._alpha, self._places = kind, alpha, places

    def mix(self, state: State, rng: np.random.Generator, owner: Tensor | None = None) -> tuple[State, Mixed]:
        """The mixed batch, of the same dtype, and how it was mixed; the given state is left as it is.

        state: all windows of the batch's samples, of one shape; owner: int64 [W], the sample of each, in order, None
        where every sample has one. Window number j of a sample is mixed with its partner's number j, beginning anew
        where the partner has fewer.
        """
        x = state["x"]
        if not _is_signal(x):
            raise _no_signal(self._kind, x)
        if self._kind == "cutmix" and x.ndim != 4:
            raise _fault("cutmix", f"states of {x.ndim} dimensions are no 2-D maps", MIXUP)
        owner = torch.arange(len(x)) if owner is None else owner.cpu()
        counts = torch.bincount(owner)
        order = torch.from_numpy(rng.permutation(len(counts)))
        share = float(rng.beta(self._alpha, self._alpha))
        first = counts.cumsum(0) - counts
        theirs = order[owner]  # [W]
        number = torch.arange(len(x)) - first[owner]
        partner = x[(first[theirs] + number % counts[theirs]).to(x.device)]
        if self._kind == "mixup":
            blend = torch.lerp(partner.float(), x.float(), share)
            blend = blend if x.is_floating_point() else blend.round()
            return {**state, "x": blend.to(x.dtype)}, Mixed(order, share)
        inside = self._rectangle(x, share, rng)
        kept = 1 - float(inside.float().mean())
        return {**state, "x": torch.where(inside, partner, x)}, Mixed(order, kept)

    def _rectangle(self, x: Tensor, share: float, rng: np.random.Generator) -> Tensor:
        """Where the other sample goes: bool, broadcastable to x. `1 - share` of the area, less what lies outside."""
        inside = torch.ones((1,) * x.ndim, dtype=torch.bool, device=x.device)
        for dim in self._places:
            length = x.shape[dim]
            half = length * (1 - share) ** 0.5 / 2
            centre = rng.uniform(0, length)
            low, high = round(max(0.0, centre - half)), round(min(float(length), centre + half))
            at = torch.arange(length, device=x.device)
            shape = [1] * x.ndim
            shape[dim] = length
            inside = inside & ((at >= low) & (at < high)).reshape(shape)
        return inside


def mixer_of(tune: TuneConfig, backbone: Backbone, start: int) -> Mixer | None:
    """The mixer that the config asks for, None where it asks for none.

    start: the segment that the mixed states enter at, 0 for the windows themselves. Raises UserError where the states
    there can't be mixed: tokens, windows of several lengths, and for cutmix all but 2-D maps. backbone: in eval mode.
    """
    if tune.mix == "none":
        return None
    example = backbone.example()
    if _differ_in_length(backbone, example):
        raise _fault(tune.mix, "the windows of this backbone differ in length")
    if example is None:  # mix() judges what comes
        return Mixer(tune.mix, tune.mix_alpha)
    if not _is_signal(example["x"]):
        raise _no_signal(tune.mix, example["x"])
    if set(example) != {"x"}:
        others = ", ".join(sorted(set(example) - {"x"}))
        raise _fault(tune.mix, f"the windows of this backbone hold more than a signal ({others})")
    if tune.mix == "mixup":
        return Mixer("mixup", tune.mix_alpha)
    places = _places(backbone, example, start)
    if places is None:
        where = f"before {backbone.segment_names[start]}" if start else "of this backbone"
        raise _fault(tune.mix, f"the states {where} are no 2-D maps", MIXUP)
    return Mixer("cutmix", tune.mix_alpha, places)


def _differ_in_length(backbone: Backbone, example: State | None) -> bool:
    if example is None:
        return backbone.ragged or type(backbone).bucket is not Backbone.bucket
    return backbone.bucket(example) != 0


def _is_signal(x: Tensor) -> bool:
    return x.is_floating_point() or x.dtype == torch.uint8


def _places(backbone: Backbone, example: State, start: int) -> tuple[int, int] | None:
    """The dimensions of a state that are places of a map, as the backbone pools it; None where it is no map."""
    state = backbone.collate([example])
    if start == 0:
        return (2, 3) if state["x"].ndim == 4 else None
    device = next((parameter.device for parameter in backbone.parameters()), torch.device("cpu"))
    with torch.no_grad():
        state = backbone({key: value.to(device) for key, value in state.items()}, 0, start)
        x = state["x"].float()
        if x.ndim != 4:
            return None
        try:
            pooled = backbone.pooled(state)
        except ValueError:
            return None
        for places in ((2, 3), (1, 2)):
            mean = x.mean(dim=places)
            if mean.shape == pooled.shape and torch.allclose(mean, pooled, rtol=1e-4, atol=1e-5):
                return places
    return None


def _no_signal(kind: str, x: Tensor) -> UserError:
    return _fault(kind, f"windows of {str(x.dtype).removeprefix('torch.')} are neither pixels nor a signal")


def _fault(kind: str, why: str, remedy: str = "set it to none") -> UserError:
    return UserError(f"config key 'tune.mix' can't be {kind!r}: {why}; {remedy}")
