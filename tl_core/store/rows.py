"""Rows as bytes and back: fixed ones raw, ragged ones as a safetensors blob of named arrays each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tl_core.errors import UserError
from tl_core.store.spaces import SpaceFacts

RaggedRow = Mapping[str, np.ndarray]
Encoded = tuple[memoryview, np.ndarray]
"""The rows' bytes, one after the other, and how many each has (int64 [N])."""


def encode_fixed(facts: SpaceFacts, digests: Sequence[str], rows: np.ndarray) -> Encoded:
    """Rows [N, *shape] (float16 or float32). Raises UserError naming those that are not finite in the dtype."""
    if rows.dtype not in (np.float16, np.float32) or rows.shape != (len(digests), *facts.shape):
        raise ValueError(f"rows {rows.dtype} {rows.shape} for {len(digests)} digests, expected {facts}")
    with np.errstate(over="ignore"):  # refused below
        stored = np.ascontiguousarray(rows, facts.dtype)
    _refuse_unless(finite_rows(stored), digests, facts)
    return stored.reshape(-1).view(np.uint8).data, np.full(len(stored), facts.row_bytes, np.int64)


def encode_ragged(facts: SpaceFacts, digests: Sequence[str], rows: Sequence[RaggedRow]) -> Encoded:
    """Rows of named arrays: floats are cast to the dtype, integers and booleans kept. Raises UserError as above."""
    if len(rows) != len(digests):
        raise ValueError(f"{len(rows)} rows for {len(digests)} digests")
    blobs, finite = [], np.ones(len(rows), bool)
    for i, row in enumerate(rows):
        with np.errstate(over="ignore"):  # refused below
            stored = {name: _stored(name, array, facts.dtype) for name, array in row.items()}
        finite[i] = all(np.isfinite(array).all() for array in stored.values())
        blobs.append(save(stored))
    _refuse_unless(finite, digests, facts)
    return memoryview(b"".join(blobs)), np.fromiter(map(len, blobs), np.int64, len(blobs))


def decode_ragged(blob: bytes) -> dict[str, np.ndarray]:
    """The named arrays of a ragged row. Raises ValueError where the bytes are none."""
    try:
        return load(blob)
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"no safetensors: {error}") from error


def sound_rows(facts: SpaceFacts, rows: Sequence[bytes]) -> np.ndarray:
    """Which of the bytes from elsewhere are what the space's writer would have stored, bool [N]."""
    if facts.ragged:
        return np.fromiter((_is_ragged_row(facts, row) for row in rows), bool, len(rows))
    sound: np.ndarray = np.fromiter(map(len, rows), np.int64, len(rows)) == facts.row_bytes
    values = np.frombuffer(b"".join(row for row, ok in zip(rows, sound) if ok), facts.dtype)
    sound[sound] = finite_rows(values.reshape(-1, math.prod(facts.shape)))
    return sound


def finite_rows(rows: np.ndarray) -> np.ndarray:
    """Which rows [N, ...] (float16 or float32, contiguous) are finite throughout, bool [N].

    By their bits: without the sign, infinity is the least number that is not finite. isfinite() takes five times as
    long for float16.
    """
    kind = np.dtype(f"<u{rows.dtype.itemsize}")
    infinity = np.array(np.inf, rows.dtype).view(kind)
    sign = np.array(-0.0, rows.dtype).view(kind)
    bits = rows.reshape(len(rows), math.prod(rows.shape[1:])).view(kind) & ~sign
    return np.asarray(bits.max(axis=1, initial=0) < infinity)


def _is_ragged_row(facts: SpaceFacts, row: bytes) -> bool:
    try:
        arrays = decode_ragged(row).values()
    except ValueError:
        return False
    return all(a.dtype.kind in "iub" or (a.dtype == facts.dtype and np.isfinite(a).all()) for a in arrays)


def _stored(name: str, array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    if array.dtype.kind == "f":
        return np.asarray(array, dtype, order="C")
    if array.dtype.kind in "iub":
        return np.asarray(array, order="C")
    raise ValueError(f"array {name!r} of {array.dtype}; ragged rows take floats, integers and booleans")


def _refuse_unless(finite: np.ndarray, digests: Sequence[str], facts: SpaceFacts) -> None:
    if finite.all():
        return
    names = [digest for digest, ok in zip(digests, finite) if not ok]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    raise UserError(
        f"features that are not finite in {facts.dtype}, of the samples with md5 {', '.join(names[:5])}{more}; "
        "check these samples and the backbone's weights, or set extract.precision to float32"
    )
