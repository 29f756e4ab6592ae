"""Files into a folder or a tar that appears whole or not at all, hashed on the way."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tl_core.errors import UserError
from tl_flows.offline.contents import File

BLOCK = 1 << 20  # bytes copied at a time
TAR_BLOCK = 1024  # bytes of a header and of the padding, at most


class DamagedError(Exception):
    """A file whose bytes are not those that its name promises."""


class Hashed:
    """A stream that is hashed and shown on a bar while it is read."""

    def __init__(self, stream: IO[bytes], bar: Any, md5: bool) -> None:
        self._stream, self._bar = stream, bar
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5(usedforsecurity=False) if md5 else None
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.sha256.update(data)
        if self.md5 is not None:
            self.md5.update(data)
        self.size += len(data)
        self._bar.update(len(data))
        return data


class Writer:
    """A folder or, where `tar` is given, a tar that files are added to."""

    def __init__(self, folder: Path, tar: tarfile.TarFile | None, bar: Any) -> None:
        self._folder, self._tar, self._bar = folder, tar, bar

    def add(self, name: str, source: Path, md5: str | None = None) -> File:
        """Copy a file under a name. Raises DamagedError where its md5 is given and differs."""
        with source.open("rb") as stream:
            hashed = Hashed(stream, self._bar, md5 is not None)
            if self._tar is None:
                target = self._folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as out:
                    shutil.copyfileobj(hashed, out, BLOCK)
            else:
                info = tarfile.TarInfo(name)
                status = os.fstat(stream.fileno())
                info.size, info.mtime = status.st_size, int(status.st_mtime)
                self._tar.addfile(info, hashed)  # type: ignore[arg-type]
        if hashed.md5 is not None and hashed.md5.hexdigest() != md5:
            raise DamagedError(f"{source} has md5 {hashed.md5.hexdigest()} instead of {md5}")
        return File(hashed.size, hashed.sha256.hexdigest())


@contextlib.contextmanager
def whole(out: Path, need: int, bar: Any) -> Iterator[tuple[Writer, Path]]:
    """(a writer of what becomes `out` when the block ends well, a folder for scratch files).

    out: a folder, or a tar where it ends with .tar; need: bytes. Raises UserError where it exists or has no room.
    """
    if out.exists():
        raise UserError(f"{out} is there already; name another place, or delete it first")
    part = out.parent / f".{out.name}.part"  # one that a killed process left goes
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
    except OSError as error:
        raise UserError(f"can't write to {out.parent}: {error.strerror or error}; name another place") from error
    try:
        room(part, need, f"the bundle {out}")
        new, scratch = part / "new", part / "scratch"
        scratch.mkdir()
        if out.suffix == ".tar":
            with tarfile.open(new, "w", format=tarfile.PAX_FORMAT) as tar:
                yield Writer(part, tar, bar), scratch
        else:
            new.mkdir()
            yield Writer(new, None, bar), scratch
        new.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def room(folder: Path, need: int, what: str) -> None:
    """Raises UserError, with figures, where the disk of a folder has less than `need` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < need:
        raise UserError(
            f"{what} needs about {need / 1e6:,.1f} MB, and the disk of {folder.parent} has {free / 1e6:,.1f} MB free; "
            "free some space, or name a place on another disk"
        )
