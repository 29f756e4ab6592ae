"""What every engine is: something that computes a span of a backbone, batch by batch, in one precision class."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

import torch

from tl_core.engines.cpu import cpu_name, threads
from tl_core.types import END, Backbone, State

K = TypeVar("K")
E = TypeVar("E", bound="Engine")


class EngineOutOfMemory(Exception):  # noqa: N818 - named for what happened, no fault of a caller
    """A batch did not fit into the memory; what was yielded before is good, what was taken and not yielded is lost."""


class Engine(ABC):
    """Computes the first `stop` segments of a backbone (None: all of them).

    name: kind, version and device type, as rows record it (`torch-2.14.1-cuda`); precision: the class; scale: what
    `Backbone.batch_size` is multiplied by, a power of two (below 1 where memory was short).
    """

    def __init__(
        self, kind: str, version: str, backbone: Backbone, stop: int | None, device: torch.device, precision: str
    ) -> None:
        self.kind = kind
        self.version = version.partition("+")[0]
        self.backbone = backbone
        self.stop = len(backbone.segments) if stop is None else stop
        self.device = device
        self.precision = precision
        self.scale = 1.0
        self.overflowed = 0  # rows of the batch that did not fit

    @property
    def name(self) -> str:
        """Names the engine in the store."""
        return f"{self.kind}-{self.version}-{self.device.type}"

    @property
    def cut(self) -> str:
        """Name of the cut that the engine computes up to."""
        names = self.backbone.segment_names
        return END if self.stop == len(names) else names[self.stop]

    def batch_size(self, rows: int) -> int:
        """Rows of a forward batch where the backbone's batch_size() says `rows`."""
        return max(1, int(rows * self.scale))

    def scaled(self: E, scale: float) -> E:
        """The same engine for batches of another size."""
        other = copy.copy(self)
        other.scale = scale
        return other

    def overflow(self, state: State) -> EngineOutOfMemory:
        """The error to raise where this batch did not fit."""
        self.overflowed = len(next(iter(state.values())))
        return EngineOutOfMemory(f"out of memory with {self.overflowed} rows in a batch")

    @abstractmethod
    def run(self, batches: Iterable[tuple[K, State]]) -> Iterator[tuple[K, State]]:
        """The states at the cut, on the CPU, contiguous and with floats in float32, in the order given.

        Takes batches ahead of what it has yielded. Raises EngineOutOfMemory, after the batches that were in flight.
        """


def describe(engine: Engine) -> str:
    """An engine in the header of a run: `openvino 2026.4.1, bfloat16, 2 threads on AMD EPYC (AVX512-BF16)`."""
    if engine.device.type == "cuda":
        where = f"on {torch.cuda.get_device_name(engine.device)}"
    else:
        count = threads()
        where = f"{count} thread{'s' if count > 1 else ''} on {cpu_name()}"
    return f"{engine.kind} {engine.version}, {engine.precision}, {where}"


def libraries(backbone: Backbone) -> dict[str, str]:
    """Versions of the distributions that a backbone's modules come from, by package: recorded with its rows."""
    found = {}
    for name in sorted({type(module).__module__.partition(".")[0] for module in backbone.modules()}):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory was short: torch's allocators raise several kinds."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    marks = ("DefaultCPUAllocator", "can't allocate memory", "out of memory", "ALLOC_FAILED", "bad_alloc")
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in marks)
