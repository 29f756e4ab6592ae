"""From a span of a backbone to an OpenVINO model: traced once, with the axes that vary left open."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tl_core.types import Backbone, State

TELEMETRY = "openvino_telemetry"


class Unsuitable(Exception):  # noqa: N818 - a verdict on the backbone, no fault
    """The backbone can't be had in this engine; the text is the reason, in a few words."""


@dataclass(frozen=True)
class Signature:
    """What goes into a converted span and comes out of it.

    inputs: dtype and shape by key, None for an axis of any length; outputs: keys that the model computes, in order;
    passed: keys that come out as they went in.
    """

    inputs: dict[str, tuple[str, tuple[int | None, ...]]]
    outputs: tuple[str, ...]
    passed: tuple[str, ...]

    def fits(self, state: State) -> bool:
        """Whether the model takes this batch."""
        return state.keys() == self.inputs.keys() and all(
            str(tensor.dtype) == self.inputs[key][0]
            and tensor.ndim == len(self.inputs[key][1])
            and all(want in (None, size) for want, size in zip(self.inputs[key][1], tensor.shape))
            for key, tensor in state.items()
        )


def openvino_version() -> str | None:
    """The installed OpenVINO's version, None without it; does not import it."""
    if importlib.util.find_spec("openvino") is None:
        return None
    return importlib.metadata.version("openvino")


def import_openvino() -> Any:
    """The module openvino, without its telemetry.

    Importing it would write to the home folder and call a server. Where that part is not installed it does without,
    so that is what it is told. Where the user's own program has imported it already, that program has decided.
    """
    if "openvino" in sys.modules or TELEMETRY in sys.modules:
        return importlib.import_module("openvino")
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # Python's own way to make an import fail
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("openvino")
    finally:
        del sys.modules[TELEMETRY]


def convert(backbone: Backbone, stop: int, example: State, open_axes: Sequence[int]) -> tuple[Any, Signature]:
    """The first `stop` segments as an OpenVINO model in float32, with its signature.

    example: a batch of two rows or more on the CPU; open_axes: lengths in it that vary from batch to batch, the batch
    axis aside. Raises Unsuitable where the backbone can't be traced or has an operation that OpenVINO lacks.
    """
    ov = import_openvino()
    with torch.no_grad():
        after = backbone(dict(example), 0, stop)
    passed = tuple(key for key, tensor in after.items() if tensor is example.get(key))
    outputs = tuple(key for key in after if key not in passed)
    if not outputs:
        raise Unsuitable("nothing to compute")
    inputs = {
        key: (str(tensor.dtype), tuple(None if axis == 0 or size in open_axes else size for axis, size in
                                       enumerate(tensor.shape)))
        for key, tensor in example.items()
    }  # fmt: skip
    try:
        with warnings.catch_warnings(), torch.no_grad(), _own_root_logger():
            warnings.simplefilter("ignore")  # tracing warns of what the proof then checks
            model = ov.convert_model(
                _Span(backbone, stop, tuple(example), outputs), example_input=tuple(example.values())
            )
        for place, key in zip(model.inputs, example, strict=True):
            place.get_tensor().set_names({key})
        model.reshape({key: [-1 if size is None else size for size in shape] for key, (_, shape) in inputs.items()})
        for place, key in zip(model.outputs, outputs, strict=True):
            place.get_tensor().set_names({f"{key}.out"})
    except Exception as error:  # whatever a tracer, a converter and a stranger's network may raise
        raise Unsuitable(f"can't convert it: {first_line(error)}") from error
    return model, Signature(inputs, outputs, passed)


@contextmanager
def _own_root_logger() -> Iterator[None]:
    """Where OpenVINO can't convert a network it leaves the whole program's root logger silenced below errors."""
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters, root.handlers = filters, handlers


class _Span(nn.Module):
    """The span with tensors instead of a state, as tracing wants it."""

    def __init__(self, backbone: Backbone, stop: int, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.backbone = backbone
        self._stop = stop
        self._inputs = inputs
        self._outputs = outputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        state = self.backbone(dict(zip(self._inputs, tensors, strict=True)), 0, self._stop)
        return tuple(state[key] for key in self._outputs)


def first_line(error: BaseException) -> str:
    """What an exception says, short enough for a note."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
