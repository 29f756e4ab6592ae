"""Windows through an engine: batches of fixed shape by bucket, and samples put together again from their windows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from tl_core.engines import Engine, EngineOutOfMemory, halve
from tl_core.types import Backbone, Prepared, State

K = TypeVar("K")

Place = tuple[int, int]
"""A window's bucket and its number in the sample."""


@dataclass
class _Sample(Generic[K]):
    """A sample on its way, with the outputs that it has so far."""

    key: K
    windows: int
    outputs: dict[Place, State] = field(default_factory=dict)


@dataclass(frozen=True)
class _Window(Generic[K]):
    state: State
    place: Place
    sample: _Sample[K]


@dataclass
class Windows:
    """One backbone's span on one engine, which is replaced by a smaller one where memory runs out.

    stop: index of the segment that comes after the span; folder: where shapes are kept, None for nowhere.
    """

    backbone: Backbone
    engine: Engine
    stop: int
    folder: Path | None = None

    def through(self, items: Iterable[tuple[K, Prepared]]) -> Iterator[tuple[K, dict[Place, State]]]:
        """(key, state of each window at the cut) of each sample once its last window is through.

        Holds a batch a bucket and what the engine has in flight. Raises UserError where one row is too much for the
        memory.
        """
        queues: dict[int, deque[_Window[K]]] = {}
        source = _windows(self.backbone, items)
        while True:
            flying: deque[list[_Window[K]]] = deque()
            try:
                for batch, state in self.engine.run(self._batches(source, queues, flying)):
                    flying.popleft()
                    yield from self._finished(batch, state)
                return
            except EngineOutOfMemory:
                self.engine = halve(self.engine, self.folder)
                for batch in reversed(flying):  # what was under way goes back to where it came from
                    queues.setdefault(batch[0].place[0], deque()).extendleft(reversed(batch))

    def _rows(self, bucket: int) -> int:
        return self.engine.batch_size(self.backbone.batch_size(bucket))

    def _batches(
        self, source: Iterator[_Window[K]], queues: dict[int, deque[_Window[K]]], flying: deque[list[_Window[K]]]
    ) -> Iterator[tuple[list[_Window[K]], State]]:
        """Full batches as windows come, at the end the rests; a row's bits depend on its batch's shape, so that a
        short batch is filled up and the surplus dropped."""

        def taken(bucket: int) -> tuple[list[_Window[K]], State]:
            queue, size = queues[bucket], self._rows(bucket)
            batch = [queue.popleft() for _ in range(min(size, len(queue)))]
            flying.append(batch)
            states = [window.state for window in batch]
            return batch, self.backbone.collate(states + states[-1:] * (size - len(states)))

        for bucket, queue in queues.items():  # left from before the memory ran out
            while len(queue) >= self._rows(bucket):
                yield taken(bucket)
        for window in source:
            bucket = window.place[0]
            queue = queues.setdefault(bucket, deque())
            queue.append(window)
            if len(queue) >= self._rows(bucket):
                yield taken(bucket)
        for bucket in sorted(queues):
            while queues[bucket]:
                yield taken(bucket)

    def _finished(self, batch: list[_Window[K]], state: State) -> Iterator[tuple[K, dict[Place, State]]]:
        for window, output in zip(batch, self._split(batch, state), strict=True):
            sample = window.sample
            sample.outputs[window.place] = output
            if len(sample.outputs) == sample.windows:
                yield sample.key, sample.outputs

    def _split(self, batch: list[_Window[K]], state: State) -> list[State]:
        """The state of each of the batch's windows."""
        if self.stop < len(self.backbone.segments):
            return self.backbone.boundary_rows(state, [window.state for window in batch])
        expected = [self._rows(batch[0].place[0]), self.backbone.feature_dim]
        if list(state["x"].shape) != expected:
            raise ValueError(f"{type(self.backbone).__name__} gave {list(state['x'].shape)}, expected {expected}")
        return [{"x": row} for row in state["x"][: len(batch)]]


def _windows(backbone: Backbone, items: Iterable[tuple[K, Prepared]]) -> Iterator[_Window[K]]:
    for key, prepared in items:
        if not prepared.windows:
            raise ValueError(f"{type(backbone).__name__}.prepare() gave a sample without windows")
        sample = _Sample(key, len(prepared.windows))
        for number, state in enumerate(prepared.windows):
            yield _Window(state, (backbone.bucket(state), number), sample)
