"""A model that training starts from instead of the pretrained weights: its tuned segments, and its head by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tl_core.heads import LinearHead
from tl_core.types import Backbone, Head

if TYPE_CHECKING:
    from tl_core.training.plan import Plan
    from tl_core.training.seen import Seen

_ROWS = ("linear.weight", "linear.bias")  # of a linear head: one for each class


@dataclass(frozen=True, eq=False)
class Start:
    """A trained model as far as another training can go on from it.

    digest: of the model, by which the config names it; backbone: the weights of its trained `segments`, by the names of
    the backbone's state dict; head: its head's, None where the head is of another kind; classes: what that names, in
    order; seen: the rows behind the weights.
    """

    digest: str
    segments: tuple[str, ...]
    backbone: Mapping[str, Tensor]
    head: Mapping[str, Tensor] | None
    classes: tuple[str, ...]
    seen: Seen

    def misfit(self, backbone: Backbone, plan: Plan) -> str | None:
        """Why training by this plan can't start from it, None where it can."""
        frozen = [name for name in self.segments if name in backbone.segment_names[: plan.start]]
        if frozen:
            return f"it has tuned segments that stay frozen here ({', '.join(frozen)}); raise tune.train_from"
        own = {name: tensor.shape for name, tensor in backbone.state_dict().items()}
        if any(own.get(name) != tensor.shape for name, tensor in self.backbone.items()):
            return "its weights have other names or shapes than the backbone's"
        return None

    @torch.no_grad()
    def put(self, backbone: Backbone) -> Backbone:
        """Copy its tuned weights into a backbone, in place; the same backbone."""
        own = backbone.state_dict()
        for name, tensor in self.backbone.items():
            own[name].copy_(tensor)
        return backbone

    def new(self, classes: Sequence[str]) -> list[str]:
        """Those of these classes that its head has no row for."""
        return [name for name in classes if name not in self.classes]

    def gone(self, classes: Sequence[str]) -> list[str]:
        """Classes of its head that are not among these."""
        return [name for name in self.classes if name not in classes]

    def suits(self, head: Head, classes: Sequence[str]) -> bool:
        """Whether its head's weights can go into this one: whole, or row by row where it is linear."""
        if self.head is None:
            return False
        shapes = {name: tensor.shape for name, tensor in head.state_dict().items()}
        found = {name: tensor.shape for name, tensor in self.head.items()}
        if tuple(classes) == self.classes:
            return found == shapes
        return (
            isinstance(head, LinearHead)
            and set(found) == set(shapes) == {"mean", "scale", *_ROWS}
            and found["mean"] == shapes["mean"]
        )

    @torch.no_grad()
    def carry(self, head: Head, classes: Sequence[str]) -> Head:
        """Put its head's weights into one that it suits(), in place: rows go by the names of their classes.

        A row of a new class says what it said, in the standardisation that comes with the other rows.
        """
        assert self.head is not None
        if tuple(classes) == self.classes:
            head.load_state_dict(dict(self.head))
            return head
        assert isinstance(head, LinearHead)
        weight, bias = (head.get_parameter(name).data for name in _ROWS)
        mean, scale = self.head["mean"].to(weight), self.head["scale"].to(weight)
        bias += weight @ ((mean - head.mean) / head.scale)
        weight *= scale / head.scale
        head.mean.copy_(mean)
        head.scale.copy_(scale)
        for row, name in enumerate(classes):
            if name in self.classes:
                then = self.classes.index(name)
                weight[row], bias[row] = self.head["linear.weight"][then], self.head["linear.bias"][then]
        return head
