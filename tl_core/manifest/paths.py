"""Where a sample's file lies: inside the data folder, or not."""

from __future__ import annotations

import os
import posixpath
import re
import stat
import unicodedata
from collections.abc import Container
from pathlib import Path

LEAVES = "path leaves the data folder"


class DataRoot:
    """The folder that all samples must lie in.

    trusted: relative paths that may be links to anywhere (a data versioning tool's links into its own cache).
    """

    def __init__(self, root: Path, trusted: Container[str] = ()) -> None:
        self.root = os.path.abspath(root)  # noqa: PTH100 - strings: a Path per row is slow
        self._real = os.path.realpath(self.root)
        self._trusted = trusted
        self._folders: dict[str, bool] = {}

    def place(self, cell: str) -> tuple[str, str | None]:
        """A table's path as a source (relative, with "/"), and why it can't be one."""
        name = cell.strip()
        if not name:
            return "", "no file named"
        if name.startswith(("/", "\\", "~")) or re.match(r"[A-Za-z]:[\\/]", name):
            return name, f"{LEAVES}: it is absolute"
        composed = unicodedata.normalize("NFC", name)
        spellings = (name, composed, unicodedata.normalize("NFD", name), name.replace("\\", "/"))
        found = next((s for s in spellings if self._exists(s)), name)
        source = posixpath.normpath(found)
        if source == ".." or source.startswith("../"):
            return source, f"{LEAVES}: it goes up with '..'"
        return source, None

    def look(self, source: str) -> tuple[str, os.stat_result] | str:
        """The file's absolute path and status, or why it can't be used."""
        path = f"{self.root}/{source}"
        try:
            if source not in self._trusted and not self._inside(path):
                return f"{LEAVES}: it is a link"
            status = os.stat(path)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return "missing file"
        except OSError as error:
            return f"unreadable: {(error.strerror or 'error').lower()}"
        if not stat.S_ISREG(status.st_mode):
            return "not a file"
        return path, status

    def contains(self, path: str) -> bool:
        """Whether an absolute path, with its links resolved, lies in the folder."""
        real = os.path.realpath(path)
        return real == self._real or real.startswith(self._real.rstrip("/") + "/")

    def _exists(self, name: str) -> bool:
        try:
            return os.path.lexists(f"{self.root}/{name}")
        except ValueError:  # a null character
            return False

    def _inside(self, path: str) -> bool:
        folder = os.path.dirname(path)  # noqa: PTH120
        if folder not in self._folders:
            self._folders[folder] = self.contains(folder)
        return self._folders[folder] and (not os.path.islink(path) or self.contains(path))  # noqa: PTH114
