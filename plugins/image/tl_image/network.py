"""What the three libraries have in common: a network without weights, and its way into segments."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tl_core import State
from tl_image.preprocessing import Preprocessing

Tensors = dict[str, Tensor]


class Stage(nn.Sequential):
    """Modules in a row, applied to the state's main tensor."""

    def forward(self, state: State) -> State:
        x = state["x"]
        for module in self:
            x = module(x)
        return {**state, "x": x}


Segments = list[tuple[str, Stage]]


@dataclass(frozen=True)
class Layout:
    """How the states between a network's segments lie: [B, C, H, W] or tokens [B, T, D].

    channels_last: [B, H, W, C] instead; prefix: the first tokens, which stand for no place of the image.
    """

    channels_last: bool = False
    prefix: int = 0


def plain(model: nn.Module) -> Layout:
    """The layout of most networks."""
    return Layout()


@dataclass(frozen=True)
class Network:
    """An image encoder before its weights are read.

    architecture: library and name, with the arguments that differ from its defaults; create: the encoder with its
    library's initialisation and without classifier; adapt: a weights file's tensors under the encoder's names, the
    classifier's left out; split: the encoder as segments that end in the pooled features [B, D]; layout: of the states
    between them, asked of the whole encoder.
    """

    architecture: str
    create: Callable[[], nn.Module]
    adapt: Callable[[nn.Module, Tensors], Tensors]
    split: Callable[[nn.Module], Segments]
    preprocessing: Preprocessing
    layout: Callable[[nn.Module], Layout] = plain


class Normalise(nn.Module):
    """Pixels to what a network was trained on: uint8 [B, 3, H, W] to float32, less the mean, by the deviation.

    mean, std: of the channels, for pixels in 0..1. float32 under autocast too. Its numbers are the preprocessing's, no
    weights: they stay out of the state dict.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)  # [3, 1, 1]
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x.float() / 255 - self.mean) / self.std


def normalised(segments: Segments, preprocessing: Preprocessing) -> Segments:
    """The segments with normalisation as the first one's first step; names, also of weights, stay."""
    (name, first), *others = segments
    normalise = Normalise(preprocessing.mean, preprocessing.std)
    steps = OrderedDict([("normalise", normalise), *((str(i), step) for i, step in enumerate(first))])
    return [(name, Stage(steps)), *others]


def describe(library: str, name: str, arguments: Mapping[str, Any]) -> str:
    """`timm/mobilenetv2_100 {"pad_type": "same"}`: the architecture as the backbone's identity records it."""
    return f"{library}/{name} {json.dumps(arguments, sort_keys=True)}" if arguments else f"{library}/{name}"


def without_heads(network: nn.Module, tensors: Tensors, heads: set[str]) -> Tensors:
    """The tensors without those that lie under one of the heads' names and are not part of the network."""
    expected = network.state_dict().keys()
    return {k: v for k, v in tensors.items() if k in expected or k.split(".")[0] not in heads}


def fits(network: nn.Module, tensors: Tensors) -> bool:
    """Whether the tensors have exactly the network's names (batch counters aside)."""

    def names(keys: Any) -> set[str]:
        return {k for k in keys if not k.endswith("num_batches_tracked")}

    return names(network.state_dict()) == names(tensors)
