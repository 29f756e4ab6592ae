"""The reference engine: a backbone's own forward in torch, eager or compiled, on a CPU or a GPU."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import torch

from tl_core.engines.engine import Engine, K, out_of_memory
from tl_core.engines.heap import reused_memory
from tl_core.types import Backbone, State

_SHAPES = 1024  # forward shapes that are compiled before torch gives up and runs eagerly: never


class TorchEngine(Engine):
    """The backbone's own modules; moves it to the device, into eval mode and its convolutions to channels-last.

    On a GPU each batch's results are fetched while the next one computes.
    """

    def __init__(
        self, backbone: Backbone, stop: int | None, device: torch.device, precision: str, *, compiled: bool = False
    ) -> None:
        super().__init__("torch-compile" if compiled else "torch", torch.__version__, backbone, stop, device, precision)
        backbone.to(device).eval()
        for tensor in (*backbone.parameters(), *backbone.buffers()):
            if tensor.ndim == 4:  # torch's convolutions are quicker so; those of other ranks can't be
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
        self._split = last_segment(backbone, self.stop)
        # None rather than its own method: an engine that refers to itself keeps the weights in memory for a while
        self._compiled: Callable[[State], State] | None = torch.compile(self._body, dynamic=False) if compiled else None
        self._ahead = 1 if device.type == "cuda" else 0  # batches whose results are not awaited yet

    def run(self, batches: Iterable[tuple[K, State]]) -> Iterator[tuple[K, State]]:
        flying: deque[tuple[K, _Flight]] = deque()
        with reused_memory() if self.device.type == "cpu" else contextlib.nullcontext():
            for key, state in batches:
                flight = self._start(state)
                if flight is None:
                    yield from _landed(flying, 0)
                    raise self.overflow(state)
                flying.append((key, flight))
                yield from _landed(flying, self._ahead)
            yield from _landed(flying, 0)

    def forward(self, state: State) -> State:
        """One batch to the cut, on the device; floats in float32."""
        with torch.inference_mode(), _repeatable(self.device):
            with self._class():
                state = (self._compiled or self._body)(state)
            return self.finish(state)

    def finish(self, state: State) -> State:
        """What comes after the segments that run in the precision class: the last one, in float32."""
        with torch.inference_mode(), _repeatable(self.device):
            state = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
            return self.backbone(state, self._split, self.stop)  # type: ignore[no-any-return]

    def _body(self, state: State) -> State:
        return self.backbone(state, 0, self._split)  # type: ignore[no-any-return]

    def _start(self, state: State) -> _Flight | None:
        """Set a batch going; None where memory is short."""
        try:
            return _Flight(self.forward(_moved(state, self.device)), self.device)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        # here, outside of the handler, the traceback no longer holds the batch's tensors
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _class(self) -> contextlib.AbstractContextManager[object]:
        stack = contextlib.ExitStack()
        if self.precision == "bfloat16":
            stack.enter_context(torch.autocast(self.device.type, torch.bfloat16))
        if self.kind == "torch-compile":
            from torch import _dynamo

            stack.enter_context(_dynamo.config.patch(cache_size_limit=_SHAPES))  # type: ignore[no-untyped-call]
        return stack


class _Flight:
    """A batch's results on their way to the CPU."""

    def __init__(self, state: State, device: torch.device) -> None:
        self._state = {key: tensor.contiguous().to("cpu", non_blocking=True) for key, tensor in state.items()}
        self._done: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record(torch.cuda.current_stream(device))

    def result(self) -> State:
        if self._done is not None:
            self._done.synchronize()
        return self._state


def _landed(flying: deque[tuple[K, _Flight]], ahead: int) -> Iterator[tuple[K, State]]:
    """The oldest batches, until so many are left in the air."""
    while len(flying) > ahead:
        key, flight = flying.popleft()
        yield key, flight.result()


def last_segment(backbone: Backbone, stop: int) -> int:
    """Where a span that ends in the embedding leaves the precision class: before the last segment, which pools.

    Pooled in bfloat16 the cosine to float32 features falls from 0.9999 to 0.996. A chain of one segment has no such
    place.
    """
    whole = stop == len(backbone.segments)
    return stop - 1 if whole and stop > 1 else stop


def _moved(state: State, device: torch.device) -> State:
    """A batch on the device, images channels-last, through pinned memory so that the copy does not wait."""

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

    return {key: moved(tensor) for key, tensor in state.items()}


@contextlib.contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """On a GPU: no kernels chosen by a race, none that add in random order, no TF32 in what is called float32."""
    if device.type != "cuda":
        yield
        return
    set_by_others = torch.get_float32_matmul_precision()  # `high`, as trainers advise, is TF32
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(set_by_others)
