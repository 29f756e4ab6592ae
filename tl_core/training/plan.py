"""What a strategy trains: which segments, from when on, and which of their parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from tl_core.config import TuneConfig
from tl_core.errors import UserError
from tl_core.training.adapters import ADAPTERS, adaptable, injected, needs_peft
from tl_core.types import Backbone

Update = Literal["all", "biases", "norms", "lora", "dora", "ia3"]

BATCH_NORM = ("all", "norms")  # updates along with which the statistics of batch-norms may change
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Plan:
    """What a strategy trains, as choices over the segment chain.

    start: index of the first segment that ever trains; stages: the first trained segment of each stage of equal
    length, the top's first (`(start,)` unless gradual); update: what of the trained segments is updated; head_start:
    whether the head starts from zeros or from the probe; random: whether the backbone starts from random weights.
    """

    start: int
    stages: tuple[int, ...]
    update: Update
    head_start: Literal["zeros", "probe"]
    random: bool


def plan_of(tune: TuneConfig, backbone: Backbone) -> Plan:
    """The plan of a strategy that trains a backbone: finetune, lp_ft, gradual or scratch.

    gradual: Howard & Ruder, ACL 2018, arXiv:1801.06146, the segments with weights one by one from the top.
    lp_ft: Kumar et al., ICLR 2022, arXiv:2202.10054. biases: Ben Zaken et al., ACL 2022, arXiv:2106.10199.
    Raises UserError, all faults at once, where the backbone has nothing of what is to be trained and where choices
    exclude each other; ValueError on a strategy that trains no backbone.
    """
    if tune.strategy not in ("finetune", "lp_ft", "gradual", "scratch"):
        raise ValueError(f"the strategy {tune.strategy} trains no backbone")
    faults = _contradictions(tune)
    start, held = 0, weighted(backbone)
    try:
        start = first_trained(backbone, "all" if tune.strategy == "scratch" else tune.train_from)
    except UserError as error:
        faults.append(str(error))
    else:
        faults += _nothing(tune.update, backbone, start)
    stages = tuple(index for index in reversed(held) if index >= start) if tune.strategy == "gradual" else (start,)
    if tune.strategy == "gradual" and len(stages) < 2:
        faults.append(
            f"config key 'tune.strategy' can't be 'gradual': {len(stages)} of the backbone's segments would train, and "
            f"there is nothing to unfreeze one by one; allowed here: finetune or lp_ft{_deeper(tune, held)}"
        )
    if faults:
        raise UserError("\n".join(faults))
    return Plan(
        start=start,
        stages=stages,
        update=tune.update,
        head_start="probe" if tune.strategy == "lp_ft" else "zeros",
        random=tune.strategy == "scratch",
    )


def weighted(backbone: Backbone) -> list[int]:
    """Indices of the segments that hold weights."""
    segments = backbone.segments.values()
    return [i for i, segment in enumerate(segments) if next(segment.parameters(), None) is not None]


def first_trained(backbone: Backbone, train_from: int | str) -> int:
    """Index of the first segment to train: the last `train_from` of those that hold weights, or all.

    auto: all, but a first one that is a table of word vectors. Only those of the training texts would move, away from
    all others, and the table costs as much as half of a small network. Raises UserError where the backbone has not as
    many.
    """
    held = weighted(backbone)
    if train_from in ("auto", "all"):
        tabled = train_from == "auto" and len(held) > 1 and _is_table(list(backbone.segments.values())[held[0]])
        return held[tabled] if held else len(backbone.segments)
    if isinstance(train_from, int) and 1 <= train_from <= len(held):
        return held[-train_from]
    names = ", ".join(backbone.segment_names[i] for i in held)
    allowed = f"1 to {len(held)} (of {names}), auto or all" if held else "all"
    raise UserError(
        f"config key 'tune.train_from' can't be {train_from}: the backbone has {len(held)} segments with "
        f"weights; allowed: {allowed}"
    )


def _is_table(segment: nn.Module) -> bool:
    """Whether most of a segment's weights are a table that is looked up."""
    tables = sum(
        p.numel() for module in segment.modules() if isinstance(module, nn.Embedding) for p in module.parameters()
    )
    return 2 * tables > sum(p.numel() for p in segment.parameters())


def updated(segment: nn.Module, update: Update) -> list[tuple[str, nn.Parameter]]:
    """The parameters of a segment that an update moves, by name; an adapter's are those that have been injected.

    biases: every bias, those of norms and attention included. norms: weights and biases of norms.
    """
    if update == "norms":
        inside = _in_norms(segment)
        return [(name, parameter) for name, parameter in segment.named_parameters() if name in inside]
    if update == "biases":
        return [(name, p) for name, p in segment.named_parameters() if name.rpartition(".")[2].endswith("bias")]
    if update in ADAPTERS:
        return injected(segment)
    return list(segment.named_parameters())


def _in_norms(segment: nn.Module) -> set[str]:
    """Names of the parameters that belong to norms."""
    return {
        f"{path}.{name}" if path else name
        for path, module in segment.named_modules()
        if is_norm(module)
        for name, _ in module.named_parameters(recurse=False)
    }


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm: torch's own, or one of a library that is called so and holds vectors alone."""
    if isinstance(module, NORMS):
        return True
    held = list(module.parameters(recurse=False))
    return "norm" in type(module).__name__.lower() and bool(held) and all(p.ndim == 1 for p in held)


def _contradictions(tune: TuneConfig) -> list[str]:
    """Choices that exclude each other, whatever the backbone."""
    faults = []

    def fault(key: str, value: object, why: str) -> None:
        faults.append(f"config key 'tune.{key}' can't be {value!r} {why}")

    if tune.strategy == "scratch":
        if isinstance(tune.train_from, int):
            fault("train_from", tune.train_from, "with tune.strategy=scratch: random weights all train; set it to all")
        if tune.update != "all":
            fault("update", tune.update, "with tune.strategy=scratch: random weights all train; set it to all")
        if tune.l2_sp > 0:
            fault(
                "l2_sp", tune.l2_sp, "with tune.strategy=scratch: random weights are no place to stay near; set it to 0"
            )
        if tune.wise < 1:
            fault("wise", tune.wise, "with tune.strategy=scratch: random weights are no model to mix with; set it to 1")
    if tune.l2_sp > 0 and tune.update in ADAPTERS:
        fault(
            "l2_sp",
            tune.l2_sp,
            f"with tune.update={tune.update}: it pulls weights, and adapters leave them as they are; set it to 0, or "
            "tune.update to all, biases or norms",
        )
    if tune.batch_norm == "update" and tune.update not in BATCH_NORM:
        fault(
            "batch_norm",
            tune.batch_norm,
            f"with tune.update={tune.update}: what the batch-norms normalise by stays as it is; set it to keep, or "
            "tune.update to all or norms",
        )
    return faults


def _nothing(update: Update, backbone: Backbone, start: int) -> list[str]:
    """Why the update finds nothing that it could move in the segments from `start` on."""
    segments = list(backbone.segments.values())[start:]
    if update == "all":
        return []
    if update in ADAPTERS:
        if (missing := needs_peft(update)) is not None:
            return [missing]
        found, what = any(adaptable(backbone, start).values()), "plain linear or convolutional layer"
    else:
        found, what = any(updated(segment, update) for segment in segments), {"biases": "bias", "norms": "norm"}[update]
    if found:
        return []
    names = ", ".join(backbone.segment_names[start:]) or "none"
    return [
        f"config key 'tune.update' can't be {update!r}: there is no {what} in the trained segments ({names}); "
        f"allowed here: all{', or a higher tune.train_from' if any(i < start for i in weighted(backbone)) else ''}"
    ]


def _deeper(tune: TuneConfig, held: list[int]) -> str:
    return f", or tune.train_from from 2 to {len(held)}" if tune.train_from == 1 and len(held) > 1 else ""
