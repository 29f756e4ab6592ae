"""md5 of files and texts: the names that samples have in the feature store, the same ones that DVC records."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

CACHE_VERSION = 2
QUERY_ROWS = 500  # SQLite's older builds allow 999 parameters in a statement
SETTLED_NS = 2_000_000_000  # a file changed later than this may change again within one tick of the clock

FileStat = tuple[str, os.stat_result]
"""A file's path and its status."""


def text_digest(text: str) -> str:
    """md5 hex of a text's UTF-8 bytes: the digest of a file that holds just this text."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def file_digest(path: str | Path) -> str:
    """md5 hex of a file's bytes. Raises OSError."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


class Cache:
    """A small SQLite table that remembers results; where it can't be used, nothing is remembered.

    Serves one thread; several processes may share the file. Closed by `close()` or `contextlib.closing`.
    """

    def __init__(self, path: Path | None, columns: str) -> None:
        self._connection: sqlite3.Connection | None = None
        if path is not None:
            self._connection = _open(path, columns) or _open(path, columns, discard=True)

    def select(self, query: str, values: Iterable[object]) -> list[tuple[object, ...]]:
        """Rows of a query, none where the cache is out of order."""
        if self._connection is None:
            return []
        try:
            return self._connection.execute(query, tuple(values)).fetchall()
        except sqlite3.Error:
            return []

    def insert(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Write rows in one transaction; a failure costs only the memory."""
        if self._connection is None or not rows:
            return
        try:
            with self._connection:
                self._connection.executemany(statement, rows)
        except sqlite3.Error:
            pass

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()


class FileDigests:
    """md5 of files, remembered in `cache/digests.sqlite` by path, size, inode and the times of the last change.

    Of content (which programs can set back) and of status (which they can't).
    """

    def __init__(self, cache: Path | None) -> None:
        path = cache / "digests.sqlite" if cache else None
        self._cache = Cache(path, "path BLOB PRIMARY KEY, size INT, mtime INT, ctime INT, inode INT, digest TEXT")

    def of(
        self,
        files: Sequence[FileStat],
        run: Callable[[Callable[[str], str | OSError], Sequence[str]], Iterable[str | OSError]] = map,
    ) -> list[str | OSError]:
        """The digest of each file, or the error that reading it gave.

        files: absolute paths with their status, taken just before. run: `map`, or a thread pool's.
        """
        found: list[str | OSError | None] = list(self._remembered(files))
        missing = [i for i, digest in enumerate(found) if digest is None]
        now = time.time_ns()
        fresh = []
        for i, digest in zip(missing, run(_digest_or_error, [files[i][0] for i in missing])):
            found[i] = digest
            path, status = files[i]
            if isinstance(digest, str) and now - last_change(status) > SETTLED_NS:
                fresh.append((os.fsencode(path), *file_state(status), digest))
        self._cache.insert("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?)", fresh)
        return [digest for digest in found if digest is not None]

    def close(self) -> None:
        """Close the cache."""
        self._cache.close()

    def _remembered(self, files: Sequence[FileStat]) -> Iterable[str | None]:
        for start in range(0, len(files), QUERY_ROWS):
            part = files[start : start + QUERY_ROWS]
            marks = ",".join("?" * len(part))
            rows = self._cache.select(
                f"SELECT path, size, mtime, ctime, inode, digest FROM entries WHERE path IN ({marks})",
                [os.fsencode(path) for path, _ in part],
            )
            known = {row[:5]: str(row[5]) for row in rows}
            for path, status in part:
                yield known.get((os.fsencode(path), *file_state(status)))


def last_change(status: os.stat_result) -> int:
    """When a file's content or status changed last, in ns since 1970."""
    return max(status.st_mtime_ns, status.st_ctime_ns)


def file_state(status: os.stat_result) -> tuple[int, int, int, int]:
    """What tells that a file may have other content: size, times of change and inode."""
    # inodes of some file systems fill 64 bits unsigned, which SQLite does not store
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & (2**63 - 1)


def _digest_or_error(path: str) -> str | OSError:
    try:
        return file_digest(path)
    except OSError as error:
        return error


def _open(path: Path, columns: str, discard: bool = False) -> sqlite3.Connection | None:
    connection = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if discard:
            path.unlink(missing_ok=True)
        connection = sqlite3.connect(path, timeout=30)
        if connection.execute("PRAGMA user_version").fetchone()[0] != CACHE_VERSION:
            with connection:
                connection.execute("DROP TABLE IF EXISTS entries")
                connection.execute(f"CREATE TABLE IF NOT EXISTS entries ({columns}) WITHOUT ROWID")
                connection.execute(f"PRAGMA user_version = {CACHE_VERSION}")
        return connection
    except (OSError, sqlite3.Error):
        if connection is not None:
            connection.close()
        return None
