"""The CPU's fastest engine: a span converted for OpenVINO, several batches in flight."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tl_core.engines.conversion import Signature, Unsuitable, convert, first_line, import_openvino, openvino_version
from tl_core.engines.cpu import cpu_name, has_bfloat16, threads
from tl_core.engines.eager import TorchEngine, last_segment
from tl_core.engines.engine import Engine, EngineOutOfMemory, K, out_of_memory
from tl_core.engines.kept import KeptModel
from tl_core.engines.proof import differs, other_lengths, unlike
from tl_core.torch_threads import one_torch_thread
from tl_core.types import Backbone, State

_CPU = torch.device("cpu")
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoEngine(Engine):
    """A compiled span; the last segment of a whole chain, and batches that it was not made for, run in torch."""

    def __init__(self, backbone: Backbone, stop: int | None, precision: str, model: Any, signature: Signature) -> None:
        super().__init__("openvino", openvino_version() or "", backbone, stop, _CPU, precision)
        self._torch = TorchEngine(backbone, stop, _CPU, precision)
        self._signature = signature
        streams = _streams(threads())
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads(),
            "NUM_STREAMS": streams,
        }
        self._model = import_openvino().Core().compile_model(model, "CPU", settings)
        self._requests = streams + 2  # the streams never wait for the caller

    def run(self, batches: Iterable[tuple[K, State]]) -> Iterator[tuple[K, State]]:
        idle = [self._model.create_infer_request() for _ in range(self._requests)]
        flying: deque[tuple[K, State, Any]] = deque()
        try:
            with one_torch_thread():  # MobileNetV3 loses a third of its rate to several
                for key, state in batches:
                    if not idle:
                        yield self._landed(flying, idle)
                    request = idle.pop()
                    if self._signature.fits(state):
                        state = self._started(request, state)
                    flying.append((key, state, request))
                while flying:
                    yield self._landed(flying, idle)
        finally:
            for _, _, request in flying:  # they read memory that is freed after this
                with contextlib.suppress(RuntimeError):
                    request.wait()

    def _started(self, request: Any, state: State) -> State:
        """Set a batch going; the state that the request reads, to be held until it is through."""
        ov = import_openvino()
        state = {key: tensor.contiguous() for key, tensor in state.items()}
        for key, tensor in state.items():
            request.set_tensor(key, ov.Tensor(tensor.numpy(), shared_memory=True))
        request.start_async()
        return state

    def _landed(self, flying: deque[tuple[K, State, Any]], idle: list[Any]) -> tuple[K, State]:
        """Wait for the oldest batch and finish it."""
        key, state, request = flying[0]
        try:
            if self._signature.fits(state):
                request.wait()
                after = {key: state[key] for key in self._signature.passed}
                for index, name in enumerate(self._signature.outputs):
                    after[name] = torch.from_numpy(np.array(request.get_output_tensor(index).data))
                after = self._torch.finish(after)
            else:
                after = self._torch.forward(state)
        except (RuntimeError, MemoryError) as error:
            if out_of_memory(error):
                raise self.overflow(state) from error
            raise
        flying.popleft()
        idle.append(request)
        return key, {key: tensor.contiguous() for key, tensor in after.items()}


def _streams(cores: int) -> int:
    """Batches computed at once: two keep two cores busier than one batch does; on larger CPUs four cores to each."""
    return min(cores, max(2, cores // 4))


def is_kept(backbone: Backbone, stop: int, precision: str, folder: Path | None) -> bool:
    """Whether the span's model is there already, so that it costs nothing to use it."""
    meta = _place(backbone, stop, folder).meta()
    return meta is not None and meta.signature is not None and precision not in meta.refused


def open_openvino(
    backbone: Backbone, stop: int, precision: str, folder: Path | None, example: State, *, again: bool
) -> OpenVinoEngine:
    """The kept model of a span, or a new conversion of it, proven on this CPU in this class.

    example: a batch on the CPU; again: try what has been refused before. Raises Unsuitable.
    """
    if precision == "bfloat16" and not has_bfloat16():
        raise Unsuitable(f"finds no bfloat16 on {cpu_name()}")
    kept = _place(backbone, stop, folder)
    meta = kept.meta() or kept.blank
    if precision in meta.refused and not again:
        raise Unsuitable(meta.refused[precision])
    try:
        read = import_openvino().Core().read_model
        model = kept.load(meta, read)
        proven = model is not None and cpu_name() in meta.proven.get(precision, ()) and precision not in meta.refused
        reference = TorchEngine(backbone, stop, _CPU, "float32").forward
        # bucket 0 is that of backbones whose windows all have one shape
        varied = backbone.bucket({key: tensor[0] for key, tensor in example.items()}) != 0
        lengths = other_lengths(reference, unlike(example, 1)) if varied and not proven else {}
        if model is None or meta.signature is None:
            model, signature = convert(backbone, last_segment(backbone, stop), unlike(example, 2), list(lengths))
            meta = kept.keep(dataclasses.replace(kept.blank, signature=signature), model)
            # read back, since reading changes the graph a little and with it the last bits of some features
            model = kept.load(meta, read) or model
        assert meta.signature is not None
        engine = OpenVinoEngine(backbone, stop, precision, model, meta.signature)
        if not proven:
            batches = [unlike(example, 2), *(unlike(batch, 3) for batch in lengths.values() or [example])]
            why = differs(lambda state: next(engine.run([(0, state)]))[1], reference, batches, precision)
            if why:
                raise Unsuitable(why)
            cpus = (*meta.proven.get(precision, ()), cpu_name())
            refused = {key: why for key, why in meta.refused.items() if key != precision}
            kept.amend(dataclasses.replace(meta, proven={**meta.proven, precision: cpus}, refused=refused))
        return engine
    except Exception as error:  # whatever tracer, converter, compiler and a stranger's network may raise
        reason = error if isinstance(error, Unsuitable) else Unsuitable(f"fails: {first_line(error)}")
        cause = error.__cause__ or error
        if not out_of_memory(cause) and not isinstance(cause, EngineOutOfMemory):
            kept.amend(dataclasses.replace(meta, refused={**meta.refused, precision: str(reason)}))
        raise reason from error


def _place(backbone: Backbone, stop: int, folder: Path | None) -> KeptModel:
    return KeptModel(folder, backbone, last_segment(backbone, stop), openvino_version() or "")
