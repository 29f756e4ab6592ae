"""Low-rank and scaling adapters of peft: put into segments before training, merged into their weights after it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from tl_core.errors import UserError
from tl_core.types import Backbone

Adapter = Literal["lora", "dora", "ia3"]
ADAPTERS: tuple[str, ...] = ("lora", "dora", "ia3")

SCALE = 2  # lora_alpha over rank: the update counts twice, as most published recipes have it


def needs_peft(update: str) -> str | None:
    """What to tell the user where peft is not installed."""
    if importlib.util.find_spec("peft") is not None:
        return None
    return (
        f"config key 'tune.update' can't be {update!r} without peft: pip install 'tl-core[adapters]', or set it to all"
    )


def adaptable(backbone: Backbone, start: int) -> dict[str, list[str]]:
    """Names of the layers that adapters fit, by segment from `start` on: `Linear`, and `Conv2d` with one group.

    Only these classes themselves: what is derived from them (a convolution that pads by itself, say) computes something
    else than peft would redo. And only layers that are called, as far as the backbone's example tells: some attention
    reads their weights by itself, past any adapter.
    """
    called = _called(backbone)
    return {
        segment: [
            name
            for name, module in part.named_modules()
            if name
            and (type(module) is nn.Linear or (type(module) is nn.Conv2d and module.groups == 1))
            and (called is None or module in called)
        ]
        for segment, part in list(backbone.segments.items())[start:]
    }


def _called(backbone: Backbone) -> set[nn.Module] | None:
    """The modules that the backbone calls on its way through the example; None without one."""
    example = backbone.example()
    if example is None:
        return None
    called: set[nn.Module] = set()
    device = next((parameter.device for parameter in backbone.parameters()), torch.device("cpu"))
    hooks = [m.register_forward_hook(lambda module, _, __: called.add(module)) for m in backbone.modules()]
    try:
        with torch.no_grad():
            backbone({key: value.to(device) for key, value in backbone.collate([example]).items()})
    finally:
        for hook in hooks:
            hook.remove()
    return called


def inject(backbone: Backbone, start: int, update: Adapter, rank: int, seed: int) -> None:
    """Wrap the adaptable layers from a segment on; the output stays what it was until training moves the adapters.

    lora: Hu et al., ICLR 2022, arXiv:2106.09685. dora: Liu et al., ICML 2024, arXiv:2402.09353. ia3: Liu et al.,
    NeurIPS 2022, arXiv:2205.05638; a factor for every output of every layer, where the paper scales keys, values and
    one layer of each block. backbone: in eval mode. The draws depend on the seed alone. Raises UserError without peft.
    """
    if (missing := needs_peft(update)) is not None:
        raise UserError(missing)
    from peft import inject_adapter_in_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for segment, names in adaptable(backbone, start).items():
            if names:
                part = inject_adapter_in_model(_config(update, rank, names), backbone.segments[segment])
                del part.peft_config  # peft leaves it there, and merge() takes out all that has been put in
                for layer in (part.get_submodule(name) for name in names):
                    _resembles(layer, layer.get_base_layer())


def injected(segment: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters of a segment's adapters, by name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [
        (f"{path}.{name}", parameter)
        for path, layer in segment.named_modules()
        if isinstance(layer, BaseTunerLayer)
        for name, parameter in layer.named_parameters()
        if name.partition(".")[0] in layer.adapter_layer_names
    ]


def merge(segments: Iterable[nn.Module]) -> None:
    """Add what the adapters learnt to the weights and take the adapters out: names and shapes are the first ones."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for segment in segments:
        wrapped = [(name, module) for name, module in segment.named_modules() if isinstance(module, BaseTunerLayer)]
        for name, layer in wrapped:
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(segment.get_submodule(parent), child, layer.get_base_layer())


def _resembles(layer: nn.Module, base: nn.Module) -> None:
    """Give a wrapped layer the plain attributes of its own: networks ask a convolution for its stride to pad by it."""
    for name, value in vars(base).items():
        if not name.startswith("_") and not hasattr(layer, name):
            setattr(layer, name, value)


def _config(update: Adapter, rank: int, names: Sequence[str]) -> Any:
    from peft import IA3Config, LoraConfig

    # a pattern that a name must match whole: names in a list would match the ends of other names too
    pattern = "|".join(re.escape(name) for name in names)
    if update == "ia3":
        return IA3Config(target_modules=pattern, feedforward_modules=[])
    return LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=pattern, use_dora=update == "dora")
