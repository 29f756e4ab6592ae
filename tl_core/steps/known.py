"""What is known of a backbone without building it, as long as nothing that it is built from has changed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tl_core.digests import SETTLED_NS, Cache, file_state, last_change
from tl_core.types import BackboneSpec
from tl_core.weights import folder_here

MOST_FILES = 2000  # of a weights folder; where more lie, it is not one

_INSTALLED = (".dist-info", ".egg-info")


def _began() -> int:
    """When this process began, in ns since 1970; by now at the latest, where the system does not tell."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - ticks * 10**9 // os.sysconf("SC_CLK_TCK")
        return time.time_ns() - age
    except (OSError, ValueError, IndexError, AttributeError):
        return time.time_ns()


BEGAN = _began()


class KnownBackbones:
    """Facts of backbones, remembered in `cache/backbones.sqlite`.

    The key is everything that a build reads or runs: the spec, each file beside the weights (path, size, change
    times, inode), the source files of tl and of the plugin, every installed distribution with its version, the system's
    libraries, Python and the CPU's instruction set; with the facts stand all other source files that were imported and
    belong to no installed distribution. Where one of them can't be told, or code on the disk is newer than this
    process, which may run what was there before, nothing is remembered and the backbone is built.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = Cache(cache / "backbones.sqlite", "key TEXT PRIMARY KEY, facts TEXT, sources TEXT")

    def get(self, key: str | None) -> dict[str, Any] | None:
        """The facts under a key from key_of(), None where they are not known, or code has changed since."""
        rows = self._cache.select("SELECT facts, sources FROM entries WHERE key = ?", [key]) if key else []
        if not rows or not all(_unchanged(stamp) for stamp in json.loads(str(rows[0][1]))):
            return None
        return dict(json.loads(str(rows[0][0])))

    def put(self, key: str | None, facts: dict[str, Any]) -> None:
        """Remember facts of a backbone that this process has just built, under a key from key_of()."""
        sources = _loose_sources()
        if key and not _newer(status for _, status in sources):
            stamps = [_stamp(path, status) for path, status in sources]
            entry = (key, json.dumps(facts), json.dumps(stamps))  # in their own order: that of segments means something
            self._cache.insert("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", [entry])

    def forget(self, key: str | None) -> None:
        """Leave out what turned out to be wrong."""
        self._cache.insert("DELETE FROM entries WHERE key = ?", [(key,)] if key else [])

    def all(self) -> list[dict[str, Any]]:
        """All facts that are remembered, of backbones that have changed since, too."""
        return [dict(json.loads(str(row[0]))) for row in self._cache.select("SELECT facts FROM entries", [])]

    def close(self) -> None:
        """Close the file."""
        self._cache.close()


def key_of(spec: BackboneSpec, request: str, random_seed: int | None) -> str | None:
    """64 hex digits over everything that decides a backbone's facts; None where that can't be told."""
    code = _package(spec)
    weights = folder_here(spec)
    if code is None or weights is None:
        return None
    try:
        own, sources = _files(weights, MOST_FILES), [*_files(code), *_files(Path(__file__).parents[1])]
        installed = _distributions()
        newest = max((last_change(status) for _, status in own), default=0)
    except (OSError, ValueError):
        return None
    if time.time_ns() - newest < SETTLED_NS:  # it may change again within one tick of the clock
        return None
    if _newer(status for _, status in [*sources, *installed]):
        return None
    facts = [
        request, random_seed, spec.name, spec.modality, spec.source, spec.location, spec.revision, spec.sha256,
        spec.licence, spec.pretrained_on, json.dumps(dict(spec.options), sort_keys=True, default=str),
        sys.version, platform.machine(), torch.backends.cpu.get_cpu_capability(),
        os.environ.get("LD_LIBRARY_PATH"), *sorted({path.name for path, _ in installed}),
        *(_stamp(path, status) for path, status in [*own, *sources, *_system()]),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def of_rows(key: str | None, what: str, digests: Sequence[str]) -> str | None:
    """The key of something that was found of the backbone under a key on samples with these digests."""
    return key and hashlib.sha256(json.dumps([key, what, list(digests)]).encode()).hexdigest()


def _stamp(path: Path, status: os.stat_result) -> tuple[str, int, int, int, int]:
    return str(path), *file_state(status)


def _newer(statuses: Iterable[os.stat_result]) -> bool:
    """Whether any of the files has changed since this process began, which may have loaded it before."""
    return max(map(last_change, statuses), default=0) > BEGAN - SETTLED_NS


def _loose_sources() -> list[tuple[Path, os.stat_result]]:
    """Source files that this process has imported from outside of installed packages: no version speaks for them."""
    installed = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    paths = {str(path) for module in list(sys.modules.values()) if (path := getattr(module, "__file__", None))}
    return [(Path(path), Path(path).stat()) for path in sorted(paths)
            if not path.startswith(installed) and Path(path).is_file()]  # fmt: skip


def _unchanged(stamp: Sequence[Any]) -> bool:
    try:
        path = Path(stamp[0])
        return list(_stamp(path, path.stat())) == list(stamp)
    except OSError:
        return False


def _package(spec: BackboneSpec) -> Path | None:
    """The folder of the plugin that builds the backbone, None where it is no package."""
    builder: Any = (spec.base or spec).builder
    while isinstance(builder, partial):
        builder = builder.func
    found = importlib.util.find_spec(str(getattr(builder, "__module__", "")).partition(".")[0] or "-")
    places = list(found.submodule_search_locations or ()) if found else []
    return Path(places[0]) if places else None


def _files(folder: Path, most: int | None = None) -> list[tuple[Path, os.stat_result]]:
    """Every file under a folder, sorted. Raises OSError, and ValueError where there are more than `most`."""
    found = []
    for root, folders, names in _walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        found += [(Path(root, name), Path(root, name).stat()) for name in sorted(names)]
        if most is not None and len(found) > most:
            raise ValueError(f"over {most} files in {folder}")
    return found


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    def refuse(error: OSError) -> None:
        raise error

    return os.walk(folder, onerror=refuse, followlinks=True)


def _distributions() -> list[tuple[Path, os.stat_result]]:
    """The `name-version.dist-info` of all that is installed."""
    places = [Path(place) for place in sys.path if Path(place).is_dir()]
    return [(path, path.stat()) for place in places for path in place.iterdir() if path.suffix in _INSTALLED]


def _system() -> list[tuple[Path, os.stat_result]]:
    """What changes when a library outside of Python is installed: a decoder's version stands in fingerprints."""
    marks = (Path("/etc/ld.so.cache"), Path(sys.prefix, "conda-meta"))
    return [(path, path.stat()) for path in marks if path.exists()]
