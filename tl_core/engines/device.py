"""Which device and which precision class a run computes in."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from tl_core.engines.cpu import has_bfloat16
from tl_core.errors import UserError

PRECISIONS = ("float32", "bfloat16")


def resolve_device(name: str) -> torch.device:
    """The device of a name (`auto`, `cpu`, `cuda`, `cuda:1`). Raises UserError where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"no device {name!r}; extract.device takes auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise UserError(
            f"device {name} is not there: torch {torch.__version__} sees {count} CUDA devices; "
            "set extract.device to auto or cpu"
        )
    return device


def resolve_precision(name: str, device: torch.device, held: Mapping[str, int]) -> str:
    """The precision class of a name (`auto`, `float32`, `bfloat16`).

    held: rows that the store holds already, by class. `auto` takes the class of most of them, since computing them
    again costs more than the faster class saves; of none, bfloat16 where the device multiplies it natively (GPUs
    since Ampere, CPUs with AMX or AVX512-BF16). Raises UserError on another name.
    """
    if name in PRECISIONS:
        return name
    if name != "auto":
        raise UserError(f"no precision {name!r}; extract.precision takes auto, {', '.join(PRECISIONS)}")
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = has_bfloat16()
    best = "bfloat16" if native else "float32"
    return max(PRECISIONS, key=lambda precision: (held.get(precision, 0), precision == best))
