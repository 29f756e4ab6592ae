"""Opening every sample once: its digest, and why it can't be used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from tl_core.digests import QUERY_ROWS, Cache, FileDigests, text_digest
from tl_core.manifest.listing import Listing
from tl_core.manifest.modality import suffix_of
from tl_core.manifest.paths import DataRoot
from tl_core.progress import progress
from tl_core.types import Loader, Source

BLOCK = 2048
THREADS = min(4, max(2, os.cpu_count() or 2))

A = TypeVar("A")
B = TypeVar("B")


def examine(
    listing: Listing, read: frozenset[str], cache: Path | None, known: Mapping[str, str], shown: bool
) -> tuple[pa.Array, dict[int, str]]:
    """The digest of each row ("" where there are no bytes to read), and reasons by row.

    read: file kinds of the modality; known: md5s by path relative to the root, which are not computed again;
    shown: whether a progress bar may appear. Rows that the listing faulted are not opened.
    """
    reasons = {row: reason for row, reason in enumerate(listing.rows["reason"].to_pylist()) if reason}
    with ThreadPoolExecutor(THREADS) as pool:
        run = _Spread(pool).map
        if listing.inline:
            return _texts(listing, reasons, run, shown), reasons
        digests = _files(listing, read, cache, known, reasons, run, shown)
        _check_files(listing, digests, cache, reasons, run, shown)
    return digests, reasons


class _Spread:
    """`map` over a pool in few large tasks: a future per sample costs more than checking a short text."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def map(self, work: Callable[[A], B], items: Sequence[A]) -> Iterator[B]:
        size = max(1, len(items) // (THREADS * 8))
        parts = [items[start : start + size] for start in range(0, len(items), size)]
        for results in self._pool.map(lambda part: [work(item) for item in part], parts):
            yield from results


_Run = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]


def _texts(listing: Listing, reasons: dict[int, str], run: _Run, shown: bool) -> pa.Array:
    chunks = []

    def verdict(text: str) -> str | None:
        return _verdict(listing.loader, text)[0] if text.strip() else "empty text"

    with progress(listing.rows.num_rows, "check", "row", shown) as bar:
        for start, texts in _blocks(listing.rows["source"]):
            rows = [row for row in range(start, start + len(texts)) if row not in reasons]
            for row, reason in zip(rows, run(verdict, [texts[row - start] for row in rows])):
                if reason:
                    reasons[row] = reason
            digests = ["" if start + i in reasons and not t else text_digest(t) for i, t in enumerate(texts)]
            chunks.append(pa.array(digests, pa.string()))
            bar.update(len(texts))
    return _joined(chunks)


def _files(
    listing: Listing,
    read: frozenset[str],
    cache: Path | None,
    known: Mapping[str, str],
    reasons: dict[int, str],
    run: _Run,
    shown: bool,
) -> pa.Array:
    root = DataRoot(listing.root, known)
    chunks = []
    with closing(FileDigests(cache)) as md5, progress(listing.rows.num_rows, "digest", "file", shown) as bar:
        for start, sources in _blocks(listing.rows["source"]):
            digests = [""] * len(sources)
            unknown: list[tuple[int, tuple[str, os.stat_result]]] = []
            for i, source in enumerate(sources):
                if start + i in reasons:
                    continue
                found = root.look(source)
                if isinstance(found, str):
                    reasons[start + i] = found
                    continue
                reason = _refusal(source, found[1], listing.loader, read)
                if reason:
                    reasons[start + i] = reason
                if source in known:
                    digests[i] = known[source]
                else:
                    unknown.append((i, found))
            for (i, _), digest in zip(unknown, md5.of([file for _, file in unknown], run)):
                if isinstance(digest, OSError):
                    reasons[start + i] = f"unreadable: {(digest.strerror or 'error').lower()}"
                else:
                    digests[i] = digest
            chunks.append(pa.array(digests, pa.string()))
            bar.update(len(sources))
    return _joined(chunks)


def _refusal(source: str, status: os.stat_result, loader: Loader, read: frozenset[str]) -> str | None:
    """Why a file can't be used, as far as its name and size tell. A name without a suffix tells nothing."""
    suffix = suffix_of(source)
    if suffix and suffix not in read:
        return f"wrong kind: {suffix} is no {loader.modality} file"
    return "empty file" if status.st_size == 0 else None


def _check_files(
    listing: Listing, digests: pa.Array, cache: Path | None, reasons: dict[int, str], run: _Run, shown: bool
) -> None:
    """Check each content once, and remember what the loader said of it."""
    contents = digests.dictionary_encode()
    codes = contents.indices.to_numpy(zero_copy_only=False)
    open_rows = np.ones(len(codes), bool)
    open_rows[list(reasons)] = False
    wanted, first = np.unique(codes[open_rows], return_index=True)
    rows = np.flatnonzero(open_rows)[first]
    bad: dict[int, str] = {}
    remembered = _Verdicts(listing.loader, cache)
    with closing(remembered), progress(len(wanted), "check", "file", shown) as bar:
        for start in range(0, len(wanted), BLOCK):
            block = slice(start, start + BLOCK)
            names = contents.dictionary.take(pa.array(wanted[block])).to_pylist()
            sources = listing.rows["source"].take(pa.array(rows[block])).to_pylist()
            for code, reason in zip(wanted[block], remembered.of(names, listing.root, sources, run)):
                if reason:
                    bad[int(code)] = reason
            bar.update(len(names))
    for row in np.flatnonzero(open_rows & np.isin(codes, list(bad))):
        reasons[int(row)] = bad[int(codes[row])]


class _Verdicts:
    """What a loader says of contents, remembered in `cache/checks.sqlite` by modality, loader version and digest."""

    def __init__(self, loader: Loader, cache: Path | None) -> None:
        path = cache / "checks.sqlite" if cache else None
        self._loader = loader
        self._cache = Cache(
            path,
            "modality TEXT, version INT, digest TEXT, reason TEXT, PRIMARY KEY (modality, version, digest)",
        )

    def of(self, digests: Sequence[str], root: Path, sources: Sequence[str], run: _Run) -> list[str | None]:
        """Why each content is unusable, or None; sources: a file of that content, below the root."""
        door = (self._loader.modality, self._loader.version)
        known: dict[str, str | None] = {}
        for start in range(0, len(digests), QUERY_ROWS):
            part = digests[start : start + QUERY_ROWS]
            marks = ",".join("?" * len(part))
            query = f"SELECT digest, reason FROM entries WHERE modality = ? AND version = ? AND digest IN ({marks})"
            for digest, reason in self._cache.select(query, (*door, *part)):
                known[str(digest)] = None if reason is None else str(reason)
        missing = [i for i, digest in enumerate(digests) if digest not in known]
        fresh = []
        for i, (reason, lasting) in zip(missing, run(lambda i: _verdict(self._loader, root / sources[i]), missing)):
            known[digests[i]] = reason
            if lasting:
                fresh.append((*door, digests[i], reason))
        self._cache.insert("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", fresh)
        return [known[digest] for digest in digests]

    def close(self) -> None:
        self._cache.close()


def _verdict(loader: Loader, source: Source) -> tuple[str | None, bool]:
    """Why a source is unusable, and whether that is a property of its bytes (not of the moment)."""
    try:
        return loader.check(source), True
    except Exception as error:  # a plugin's fault must not end the scan of all other samples
        text = str(error).strip().splitlines()
        return f"unreadable: {text[0][:200] if text else type(error).__name__}", False


def _blocks(column: pa.ChunkedArray) -> Iterator[tuple[int, list[str]]]:
    for start in range(0, len(column), BLOCK):
        yield start, column.slice(start, BLOCK).to_pylist()


def _joined(chunks: Sequence[pa.Array]) -> pa.Array:
    return pa.concat_arrays(chunks) if chunks else pa.array([], pa.string())
