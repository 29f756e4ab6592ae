"""WiSE-FT: a model between the weights that training started from and the tuned ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of all floating-point tensors of a module, running statistics included."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items() if tensor.is_floating_point()}


@torch.no_grad()
def interpolate(module: nn.Module, start: Mapping[str, Tensor], share: float) -> None:
    """Set a module in place to `share * tuned + (1 - share) * start`, for the tensors that `start` names.

    share: 1 leaves the tuned weights, 0 gives the start, both to the bit. Wortsman et al., CVPR 2022,
    arXiv:2109.01903.
    """
    tuned = module.state_dict()
    for name, tensor in start.items():
        tuned[name].copy_(torch.lerp(tensor.to(tuned[name].device), tuned[name], share))
