"""The part of a backbone that trains: its parameters, modes, pull towards the start, and its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from tl_core.config import TuneConfig
from tl_core.training import adapters
from tl_core.training.interpolate import interpolate, weights_of
from tl_core.training.plan import Plan, updated, weighted
from tl_core.types import Backbone, Head

if TYPE_CHECKING:
    from tl_core.training.start import Start


class Trained:
    """The segments of a backbone that a plan trains.

    Made before training, from the backbone as it starts: a saved state is loaded afterwards. Everything else of the
    backbone is frozen and in eval mode. seed: of the adapters' first weights; start: the model to go on from. What
    pulls back (l2_sp) and what is mixed in at the end (wise) are the weights that the backbone came with all the same.

    segments: names of the segments that train at some time; parameters: how many numbers training moves.
    """

    def __init__(
        self, backbone: Backbone, plan: Plan, tune: TuneConfig, seed: int = 0, start: Start | None = None
    ) -> None:
        self._backbone, self._plan, self._tune, self._goes_on = backbone, plan, tune, start is not None
        self._parts = dict(list(backbone.segments.items())[plan.start :])
        self._head: tuple[Head, dict[str, Tensor]] | None = None
        backbone.requires_grad_(False).eval()
        # before adapters rename the weights, and while they hold what the backbone came with
        self._wise = {name: weights_of(part) for name, part in self._parts.items()} if tune.wise < 1 else {}
        pulled = [p for part in self._parts.values() for _, p in updated(part, plan.update)] if tune.l2_sp > 0 else []
        self._start = {id(p): p.detach().clone() for p in pulled}
        if start is not None:
            start.put(backbone)
        if plan.update in adapters.ADAPTERS:
            adapters.inject(backbone, plan.start, cast(adapters.Adapter, plan.update), tune.rank, seed)
        self._moved = {name: updated(part, plan.update) for name, part in self._parts.items()}
        self.segments = tuple(self._parts)
        self.parameters = sum(p.numel() for p in self._parameters())
        self.enter_stage(0)

    @property
    def first(self) -> int:
        """Index of the first segment that trains in the present stage: what comes before needs no gradients."""
        return self._first

    def enter_stage(self, stage: int) -> None:
        """Train from the plan's stage of this number on, and freeze what comes before it."""
        self._first = self._plan.stages[stage]
        for index, name in enumerate(self.segments, self._plan.start):
            for _, parameter in self._moved[name]:
                parameter.requires_grad_(index >= self._first)
                if index < self._first:
                    parameter.grad = None

    def train(self, windows: int | None = None) -> None:
        """Train mode for the segments that train in this stage, eval mode for the others.

        Batch-norm keeps the statistics of the pretraining, normalising by them, unless `tune.batch_norm` says
        otherwise; random weights have none worth keeping. windows: those of the batch, where known; a single one has no
        statistics of its own, and leaves them too.
        """
        self._backbone.eval()
        statistics = (self._plan.random or self._tune.batch_norm == "update") and windows != 1
        for index, part in enumerate(self._parts.values(), self._plan.start):
            if index < self._first:
                continue
            part.train()
            for module in part.modules():
                if isinstance(module, _NormBase) and not statistics:
                    module.eval()

    def groups(self, head: Head) -> list[dict[str, Any]]:
        """Parameter groups for AdamW, of all stages together.

        Each segment with weights has `layer_decay` times the rate of the next above it, the topmost `lr`; the head
        `head_rate`. Matrices decay; vectors (biases, norms) and scaling adapters don't, nor does the backbone where
        l2_sp pulls it elsewhere. Called once, with the head as it starts.
        """
        tune = self._tune
        if tune.wise < 1 and self._plan.head_start == "probe" and not self._goes_on:
            self._head = (head, weights_of(head))
        order = [self._backbone.segment_names[i] for i in weighted(self._backbone)]
        rates: dict[float, list[tuple[nn.Parameter, bool]]] = {}
        seen: set[int] = set()
        for name, moved in self._moved.items():
            for path, parameter in moved:
                if id(parameter) in seen:  # shared between segments: the lower one has it
                    continue
                seen.add(id(parameter))
                rate = tune.lr * tune.layer_decay ** (len(order) - 1 - order.index(name))
                decays = tune.l2_sp == 0 and _is_matrix(path, parameter, self._plan.update)
                rates.setdefault(rate, []).append((parameter, decays))
        groups = [group for rate, members in rates.items() for group in _groups(members, rate, tune.weight_decay)]
        of_head = [(p, p.ndim > 1) for p in head.parameters()]
        return [*groups, *_groups(of_head, tune.head_rate, tune.weight_decay)]

    def penalty(self) -> Tensor | None:
        """`l2_sp / 2` times the squared distance of the trained weights from the backbone's own; None without l2_sp.

        Li, Grandvalet & Davoine, ICML 2018, arXiv:1802.01483.
        """
        if self._tune.l2_sp == 0:
            return None
        total: Tensor | None = None
        for parameter in self._parameters():
            if not parameter.requires_grad:  # still at the start
                continue
            start = self._start[id(parameter)] = self._start[id(parameter)].to(parameter.device)
            distance = (parameter - start).square().sum()
            total = distance if total is None else total + distance
        return None if total is None else self._tune.l2_sp / 2 * total

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All that training may move in the backbone, by name: trained parameters, and buffers of their segments.

        Copying into them sets the state; weights that only an adapter sits on are not among them.
        """
        for name, part in self._parts.items():
            parameters = {path for path, _ in part.named_parameters(remove_duplicate=False)}
            moved = {path for path, _ in self._moved[name]}
            for path, tensor in part.state_dict().items():
                if path in moved or path not in parameters:
                    yield f"segments.{name}.{path}", tensor

    def finish(self) -> None:
        """End training: adapters merged into the weights and taken out, then weights between start and tuned (WiSE-FT).

        A head that started from zeros, or from another model's, has no start to go back to and stays as tuned. The
        backbone's state dict has its first names and shapes again; everything is frozen and in eval mode.
        """
        if self._plan.update in adapters.ADAPTERS:
            adapters.merge(self._parts.values())
        for name, start in self._wise.items():
            interpolate(self._parts[name], start, self._tune.wise)
        if self._head is not None:
            interpolate(*self._head, self._tune.wise)
        self._wise, self._head = {}, None  # once is enough
        self._backbone.requires_grad_(False).eval()

    def _parameters(self) -> Iterator[nn.Parameter]:
        seen: set[int] = set()
        for moved in self._moved.values():
            for _, parameter in moved:
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield parameter


def _is_matrix(path: str, parameter: nn.Parameter, update: str) -> bool:
    """Whether weight decay makes sense: an adapter's factor pulled to zero would switch its layer off."""
    if update in adapters.ADAPTERS:
        return ".lora_A." in path or ".lora_B." in path
    return parameter.ndim > 1


def _groups(members: list[tuple[nn.Parameter, bool]], lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Up to two groups at one rate: with weight decay and without."""
    groups = [
        {"params": [p for p, decays in members if decays], "lr": lr, "weight_decay": weight_decay},
        {"params": [p for p, decays in members if not decays], "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
