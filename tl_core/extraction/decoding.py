"""Samples to windows, by threads that run a bounded way ahead of the forward."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from tl_core.digests import file_digest, file_state
from tl_core.engines import threads
from tl_core.errors import DecodeError, SampleChanged
from tl_core.types import Backbone, Loader, Prepared, Sample, Source

CHUNK = 32  # samples that a thread takes at once: tokenizers are faster in batches
CHUNK_BYTES = 64 << 20  # of their windows, a single sample's aside: 32 hours of sound would take 7 GB
MOST_THREADS = 8


def decoder_threads() -> int:
    """One per core, 2 to 8: processes were slower, since the decoders release Python's lock."""
    return min(MOST_THREADS, max(2, threads()))


def decoder_pool() -> ThreadPoolExecutor:
    """Threads that decode."""
    return ThreadPoolExecutor(decoder_threads(), "decode")


def decoded(sample: Sample, loader: Loader, need: Any = None) -> Any:
    """A sample in memory, provided that it still is what its digest says. Raises SampleChanged.

    need: the backbone's; None decodes the sample whole.
    """
    try:
        if not isinstance(sample.source, Path):
            return _decode(sample.source, loader, need)
        before = _checked(sample.source, sample.digest)  # its features would be kept under the old digest for good
        result = _decode(sample.source, loader, need)
        if file_state(sample.source.stat()) != before:  # replaced between check and decoding, perhaps
            _checked(sample.source, sample.digest)
        return result
    except (DecodeError, OSError) as error:
        raise SampleChanged(f"{sample.id} has changed since it was checked ({error}); run again") from error


def _decode(source: Source, loader: Loader, need: Any) -> Any:
    return loader.decode(source) if need is None else loader.decode_for(source, need)


def _checked(path: Path, digest: str) -> tuple[int, ...]:
    """The file's state just before it was found to have these bytes. Raises DecodeError where it has others."""
    state = file_state(path.stat())
    if file_digest(path) != digest:
        raise DecodeError("other bytes")
    return state


def prepared(
    samples: Iterable[Sample], loader: Loader, backbone: Backbone
) -> Generator[tuple[Sample, Prepared], None, None]:
    """(sample, its windows) in the order given. Raises SampleChanged where one is no longer what was checked."""
    source = iter(samples)
    waiting: deque[tuple[list[Sample], Future[list[Prepared]]]] = deque()
    pool = decoder_pool()
    ahead = decoder_threads() + 1  # chunks decoded and waiting, at most: bounds the memory
    size = 1
    try:
        while True:
            while len(waiting) < ahead and (chunk := list(islice(source, size))):
                waiting.append((chunk, pool.submit(_prepare, chunk, loader, backbone)))
            if not waiting:
                return
            chunk, future = waiting.popleft()
            windows = future.result()
            size = max(1, min(CHUNK, 2 * size, CHUNK_BYTES * len(chunk) // max(1, _bytes(windows))))
            yield from zip(chunk, windows, strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _bytes(samples: Iterable[Prepared]) -> int:
    return sum(tensor.nbytes for sample in samples for window in sample.windows for tensor in window.values())


def _prepare(chunk: list[Sample], loader: Loader, backbone: Backbone) -> list[Prepared]:
    one_by_one: Iterator[Any] = (decoded(sample, loader, backbone.need) for sample in chunk)
    return backbone.prepare_many(one_by_one)
