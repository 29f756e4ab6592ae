"""Rows as the store takes them: embeddings as one array a row, boundary states fixed or ragged."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self, cast

import numpy as np
import torch
from torch import Tensor

from tl_core.errors import UserError
from tl_core.extraction.windows import Place
from tl_core.store import TRUNCATED, FeatureStore, RaggedWriter, Space, StoreFull, Writer
from tl_core.types import END, Backbone, Prepared, Sample, State

DTYPES: dict[str, np.dtype[np.floating]] = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(np.float16)}
"""How rows of a precision class are stored: pooled in float32, so float16 keeps more of them than bfloat16 would."""

FLUSH_ROWS, FLUSH_BYTES, FLUSH_SECONDS = 256, 32 << 20, 2.0  # what a kill loses, at most

Row = np.ndarray | dict[str, np.ndarray]


def embedding(outputs: Mapping[Place, State]) -> Tensor:
    """A sample's embedding, float32 [D]: the mean over its windows' [D], added by bucket and number."""
    rows = torch.stack([outputs[place]["x"] for place in sorted(outputs)])
    return pool_windows(rows, torch.zeros(len(rows), dtype=torch.int64), 1)[0]


def pool_windows(outputs: Tensor, owners: Tensor, n: int) -> Tensor:
    """The mean over each sample's windows, in float32: [W, D] and int64 [W] -> [n, D]; differentiable.

    Adds in the order given (on the CPU), so that a sample's bits do not depend on its company.
    """
    outputs = outputs.float()
    total = outputs.new_zeros(n, outputs.shape[1]).index_add(0, owners, outputs)
    counts = torch.bincount(owners, minlength=n).clamp(min=1)
    return total / counts.unsqueeze(1)  # [n, D] / [n, 1]


def packed(backbone: Backbone, cut: str, outputs: Mapping[Place, State]) -> Row:
    """A sample's row at a cut: its embedding, the one window's `x`, or all windows as `<number>.<key>`.

    Raises ValueError where a backbone that is not ragged has several windows a sample or more than `x` at the cut.
    """
    if cut == END:
        return embedding(outputs).numpy()
    states = [outputs[place] for place in sorted(outputs, key=lambda place: place[1])]
    if backbone.ragged:
        return {f"{i}.{key}": tensor.numpy() for i, state in enumerate(states) for key, tensor in state.items()}
    if len(states) > 1 or set(states[0]) != {"x"}:
        raise ValueError(f"{type(backbone).__name__} has several windows or tensors at {cut}: set ragged = True")
    return states[0]["x"].numpy()


def unpacked(row: Row, truncated: bool) -> Prepared:
    """A boundary row as windows again; floats as float32."""
    if not isinstance(row, dict):
        return Prepared(({"x": torch.from_numpy(row.astype(np.float32))},), truncated)
    windows: dict[int, State] = {}
    for name, array in row.items():
        number, _, key = name.partition(".")
        tensor = torch.from_numpy(array)
        windows.setdefault(int(number), {})[key] = tensor.float() if tensor.is_floating_point() else tensor
    return Prepared(tuple(windows[number] for number in sorted(windows)), truncated)


class NotFinite(UserError):  # noqa: N818 - named for what it tells
    """A feature that its precision class can't hold."""


class Rows:
    """Rows on their way into a space, written in batches small enough that a kill loses little.

    A context manager: what has come together is written at its end, also where a UserError ends it.
    """

    def __init__(self, store: FeatureStore, space: Space, *, engine: str, made: Mapping[str, str], total: int) -> None:
        self._store, self._space, self._engine, self._made = store, space, engine, dict(made)
        self._dtype = DTYPES[space.precision]
        self._total = total
        self._writer: Writer | RaggedWriter | None = None
        self._rows: list[tuple[Sample, Row, bool]] = []
        self._bytes = 0
        self._written = time.monotonic()

    def add(self, sample: Sample, row: Row, truncated: bool) -> None:
        """Take a row, and write those that have come together where it is time to."""
        self._rows.append((sample, row, truncated))
        self._bytes += sum(part.nbytes for part in row.values()) if isinstance(row, dict) else row.nbytes
        late = time.monotonic() - self._written > FLUSH_SECONDS
        if late or len(self._rows) >= FLUSH_ROWS or self._bytes >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what has come together. Raises UserError naming the samples whose features are not finite."""
        if not self._rows:
            return
        samples, rows, truncated = zip(*self._rows)
        self._refuse_infinite(samples, rows)
        digests, flags = [sample.digest for sample in samples], np.array(truncated, np.uint8) * TRUNCATED
        self._writer = self._writer or self._opened(rows[0])
        try:
            if isinstance(self._writer, RaggedWriter):
                self._writer.append(digests, cast("list[dict[str, np.ndarray]]", list(rows)), flags)
            else:
                self._writer.append(digests, np.stack(cast("list[np.ndarray]", rows)).astype(self._dtype), flags)
        except StoreFull as full:
            raise StoreFull(full.root, full.stored, self._total - full.stored) from None
        self._rows, self._bytes = [], 0
        self._written = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.flush()
            elif isinstance(error, UserError) and not isinstance(error, StoreFull):
                with suppress(UserError):  # a sample is not what it was: what came before it is good
                    self.flush()
        finally:
            if self._writer is not None:
                self._writer.close()

    def _opened(self, row: Row) -> Writer | RaggedWriter:
        if isinstance(row, dict):
            return self._store.ragged_writer(self._space, self._dtype, self._engine, self._made)
        return self._store.writer(self._space, row.shape, self._dtype, self._engine, self._made)

    def _refuse_infinite(self, samples: Sequence[Sample], rows: Sequence[Row]) -> None:
        bad = [sample.id for sample, row in zip(samples, rows) if not _finite(row, self._dtype)]
        if bad:
            more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
            half = self._dtype == np.float16
            remedy = "set extract.precision to float32" if half else "check the weights"
            raise NotFinite(
                f"features of {', '.join(bad[:5])}{more} are not finite in {self._space.precision}; {remedy}"
            )


def _finite(row: Row, dtype: np.dtype[np.floating]) -> bool:
    parts = row.values() if isinstance(row, dict) else [row]
    most = float(np.finfo(dtype).max)
    return all(bool((np.abs(part) <= most).all()) for part in parts if np.issubdtype(part.dtype, np.floating))
