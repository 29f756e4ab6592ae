"""Which engine computes a backbone: as the config says, or by rules that a resumed run follows to the same choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from tl_core.engines.conversion import Unsuitable, first_line, openvino_version
from tl_core.engines.eager import TorchEngine
from tl_core.engines.engine import Engine
from tl_core.engines.openvino_engine import is_kept, open_openvino
from tl_core.engines.proof import differs, unlike
from tl_core.engines.shapes import kept_scale
from tl_core.errors import UserError
from tl_core.types import Backbone, State

# Work is counted in floating-point operations.
CONVERT_FROM = 4e11  # 50 images through ResNet-50, 700 through MobileNetV2, 300 texts through MiniLM: some 2 s of work
COMPILE_FROM = 3e15  # 400,000 images through ResNet-50 on a GPU: compiling takes 20-110 s to gain a third

_counted: WeakKeyDictionary[Backbone, dict[tuple[Any, ...], float]] = WeakKeyDictionary()


def choose_engine(
    backbone: Backbone,
    *,
    engine: str = "auto",
    device: torch.device,
    precision: str,
    stop: int | None,
    rows: int,
    folder: Path | None,
    example: State,
) -> tuple[Engine, str | None]:
    """The engine for a span of a backbone, and a line on why it is not the one wanted (None where it is).

    engine: auto, torch, compile or openvino; rows: windows of all that is asked for, stored or not; folder: where
    shapes and converted models are kept (None: nowhere); example: a collated batch on the CPU, its first row a usual
    one.

    auto never goes by timing. On a CPU it takes openvino where that is installed and the span is converted already
    or is worth it (CONVERT_FROM), on a GPU compile for work from COMPILE_FROM in batches of one shape, else torch.
    Raises UserError where openvino is wanted and not installed, or wanted on a GPU.
    """
    stop = len(backbone.segments) if stop is None else stop
    wanted = _automatic(backbone, device, precision, stop, rows, folder, example) if engine == "auto" else engine
    if wanted == "openvino":
        _check_openvino(device)
    try:
        if wanted == "openvino":
            found: Engine = open_openvino(backbone, stop, precision, folder, example, again=engine != "auto")
        elif wanted == "compile":
            found = _compiled(backbone, stop, device, precision, folder, example)
        else:
            found = TorchEngine(backbone, stop, device, precision)
        return kept_scale(found, folder), None
    except Unsuitable as reason:
        called = {"openvino": "OpenVINO", "compile": "torch.compile"}[wanted]
        fallback = TorchEngine(backbone, stop, device, precision)
        return kept_scale(fallback, folder), f"computing with torch: {called} {reason}"


def _automatic(
    backbone: Backbone,
    device: torch.device,
    precision: str,
    stop: int,
    rows: int,
    folder: Path | None,
    example: State,
) -> str:
    if device.type == "cuda":
        one_shape = backbone.bucket({key: tensor[0] for key, tensor in example.items()}) == 0
        return "compile" if one_shape and rows * flops_of(backbone, stop, example) >= COMPILE_FROM else "torch"
    if openvino_version() is None:
        return "torch"
    if is_kept(backbone, stop, precision, folder):
        return "openvino"
    return "openvino" if rows * flops_of(backbone, stop, example) >= CONVERT_FROM else "torch"


def flops_of(backbone: Backbone, stop: int, example: State) -> float:
    """Floating-point operations of one row like the example's first, counted in one forward on the CPU.

    0 for a network that can't be counted: it stays with torch. Moves the backbone to the CPU. Counted once for all
    examples of one shape.
    """
    from torch.utils.flop_counter import FlopCounterMode

    known = _counted.setdefault(backbone, {})
    shapes = (stop, *sorted((key, tuple(tensor.shape[1:])) for key, tensor in example.items()))
    if shapes in known:
        return known[shapes]
    backbone.cpu().eval()
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            backbone(unlike(example, 1), 0, stop)
    except Exception:  # whatever a stranger's network makes of being watched; its own faults show when it computes
        return known.setdefault(shapes, 0.0)
    return known.setdefault(shapes, float(counter.get_total_flops()))


def _check_openvino(device: torch.device) -> None:
    if openvino_version() is None:
        raise UserError(
            "extract.engine is openvino, which is not installed: pip install 'tl-core[openvino]', or set it to auto"
        )
    if device.type != "cpu":
        raise UserError(
            f"extract.engine is openvino, which computes on the CPU, and extract.device is {device}; set the device "
            "to cpu or the engine to auto"
        )


def _compiled(
    backbone: Backbone, stop: int, device: torch.device, precision: str, folder: Path | None, example: State
) -> Engine:
    """torch.compile's engine, compiled for the example's shape and compared with eager there. Raises Unsuitable."""
    reference = TorchEngine(backbone, stop, device, precision)
    engine = kept_scale(TorchEngine(backbone, stop, device, precision, compiled=True), folder)
    bucket = backbone.bucket({key: tensor[0] for key, tensor in example.items()})
    batch = unlike(example, engine.batch_size(backbone.batch_size(bucket)))

    def through(used: Engine) -> State:
        return next(used.run([(0, batch)]))[1]

    try:
        why = differs(lambda _: through(engine), lambda _: through(reference), [batch], precision)
    except Exception as error:  # a compiler missing, an operation that it can't take, memory short
        raise Unsuitable(f"fails: {first_line(error)}") from error
    if why:
        raise Unsuitable(why)
    return engine
