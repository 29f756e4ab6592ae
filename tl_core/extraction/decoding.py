"""Samples to windows, by threads that run a bounded way ahead of the forward."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from tl_core.errors import DecodeError, UserError
from tl_core.types import Backbone, Loader, Prepared, Sample

CHUNK = 32  # samples that a thread takes at once: tokenizers are faster in batches
MOST_THREADS = 8


def decoder_threads() -> int:
    """One per core, 2 to 8: processes were slower, since the decoders release Python's lock."""
    return min(MOST_THREADS, max(2, len(os.sched_getaffinity(0))))


def decoder_pool() -> ThreadPoolExecutor:
    """Threads that decode."""
    return ThreadPoolExecutor(decoder_threads(), "decode")


def decoded(sample: Sample, loader: Loader, need: Any = None) -> Any:
    """A sample in memory, provided that it still is what its digest says. Raises UserError where it has changed.

    need: the backbone's; None decodes the sample whole.
    """
    try:
        if isinstance(sample.source, Path):  # its features would be kept under the old digest for good
            with sample.source.open("rb") as stream:
                if hashlib.file_digest(stream, "md5").hexdigest() != sample.digest:
                    raise DecodeError("other bytes")
        return loader.decode(sample.source) if need is None else loader.decode_for(sample.source, need)
    except (DecodeError, OSError) as error:
        raise UserError(f"{sample.id} has changed since it was checked ({error}); run again") from error


def prepared(
    samples: Iterable[Sample], loader: Loader, backbone: Backbone
) -> Generator[tuple[Sample, Prepared], None, None]:
    """(sample, its windows) in the order given. Raises UserError where a sample has changed since it was checked."""
    source = iter(samples)
    waiting: deque[tuple[list[Sample], Future[list[Prepared]]]] = deque()
    pool = decoder_pool()
    ahead = decoder_threads() + 1  # chunks decoded and waiting, at most: bounds the memory
    try:
        while True:
            while len(waiting) < ahead and (chunk := list(islice(source, CHUNK))):
                waiting.append((chunk, pool.submit(_prepare, chunk, loader, backbone)))
            if not waiting:
                return
            chunk, future = waiting.popleft()
            yield from zip(chunk, future.result(), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(chunk: list[Sample], loader: Loader, backbone: Backbone) -> list[Prepared]:
    one_by_one: Iterator[Any] = (decoded(sample, loader, backbone.need) for sample in chunk)
    return backbone.prepare_many(one_by_one)
