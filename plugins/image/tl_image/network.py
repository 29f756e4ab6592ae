"""What the three libraries have in common: a network without weights, and its way into segments."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tl_core import State
from tl_image.preprocessing import Preprocessing

Segments = list[tuple[str, nn.Module]]
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Network:
    """An image encoder before its weights are read.

    architecture: library and name, with the arguments that differ from its defaults; create: the encoder with its
    library's initialisation and without classifier; adapt: a weights file's tensors under the encoder's names, the
    classifier's left out; split: the encoder as segments that end in the pooled features [B, D].
    """

    architecture: str
    create: Callable[[], nn.Module]
    adapt: Callable[[nn.Module, Tensors], Tensors]
    split: Callable[[nn.Module], Segments]
    preprocessing: Preprocessing


class Stage(nn.Sequential):
    """Modules in a row, applied to the state's main tensor."""

    def forward(self, state: State) -> State:
        x = state["x"]
        for module in self:
            x = module(x)
        return {**state, "x": x}


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
