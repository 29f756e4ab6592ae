"""Extractions killed at random instants: every store passes verify, and the finished features are bit for bit right.

Runs are forked from a process that has imported everything and done nothing, so that a kill can fall on any instant of
an extraction without seconds of imports before each. A store is killed again and again until a run gets through; then
its features are compared with those of an undisturbed run, and the next store begins: most with the converted model
kept and no rows, some from nothing, so that kills fall on the conversion too.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.features.material import load, manifest_of, texts
from benchmarks.features.models import tiny_bert_folder
from benchmarks.features.plugins import registry_here
from benchmarks.features.setting import Setup, fast_engine, say
from tl_core.extraction import DTYPES, extract, space_of
from tl_core.store import FeatureStore, MissingRows

CASES = ("texts",)
SEED = 4
FROM_NOTHING = 5  # every so many stores
WARM = 16  # texts that the converted model is made with


def measure(case: str, setup: Setup) -> dict[str, Any]:
    """So many kills, with where they fell, and every fault; at the first the store is left as it was."""
    kills, count = setup.sized(100, 4), setup.sized(2000, 300)
    manifest = manifest_of(texts(setup, count + WARM), setup)
    folder = setup.cache / "kills"
    shutil.rmtree(folder, ignore_errors=True)
    runs = _Runs(str(manifest), str(tiny_bert_folder(setup)))
    runs.whole(folder / "warm", 0, WARM)  # the first child pays for what the server imports
    shutil.rmtree(folder / "warm")
    seconds = {
        "from_nothing": runs.whole(folder / "nothing", WARM, count),
        "warm_up": runs.whole(folder / "warm", 0, WARM),
    }
    shutil.copytree(folder / "warm", folder / "undisturbed")
    seconds["converted"] = runs.whole(folder / "undisturbed", WARM, count)
    expected, precision = runs.features(folder / "undisturbed", WARM, count)
    say(f"  {kills} kills, seed {SEED}; an undisturbed run takes {seconds['converted']:.1f} s")
    rng = np.random.default_rng(SEED)
    instants: list[float] = []
    rows_kept: list[int] = []
    faults: list[str] = []
    through = equal = stores = 0
    clock = time.perf_counter()
    while len(instants) < kills and not faults:
        root = folder / f"store-{stores}"
        bare = stores % FROM_NOTHING == FROM_NOTHING - 1
        span = seconds["from_nothing" if bare else "converted"]
        if not bare:
            shutil.copytree(folder / "warm", root)
        stores += 1
        while True:
            after = None if len(instants) == kills else float(rng.uniform(0, span))
            killed = runs.killed(root, WARM, count, after)
            faults += _faults(root)
            if not killed or faults:
                break
            instants.append(round(after or 0.0, 4))
            rows_kept.append(runs.stored(root, WARM, count))
        if faults:
            say(f"  {root}, killed at {after} s: {'; '.join(faults[:5])}")
            break
        found, _ = runs.features(root, WARM, count)
        through += 1
        equal += found.tobytes() == expected.tobytes()
        shutil.rmtree(root)
        say(f"  {len(instants)} kills, {through} stores got through, {equal} with equal bytes")
    kept = np.array(rows_kept, int)
    return {
        "kills": len(instants),
        "seed": SEED,
        "rows": count,
        "engine": fast_engine(),
        "precision": precision,
        "stores": through,
        "stores_byte_equal": equal,
        "verify_faults": faults,
        "undisturbed_seconds": {name: round(value, 3) for name, value in seconds.items()},
        "killed_after_seconds": instants,
        "median_killed_after": median(instants) if instants else None,
        "kills_with_some_rows_stored": int(((kept > 0) & (kept < count)).sum()),
        "seconds": round(time.perf_counter() - clock, 1),
    }


class _Runs:
    """Extractions of one manifest by one backbone, each in a forked process."""

    def __init__(self, manifest: str, backbone: str) -> None:
        self._manifest, self._backbone = manifest, backbone
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__, "benchmarks.features.preloaded"])
        built = registry_here().backbone(backbone, "text").build()
        self._spaces = [space_of(built, precision) for precision in DTYPES]
        self._table, self._rows = load(Path(manifest))

    def _start(self, root: Path, start: int, count: int) -> BaseProcess:
        process = self._context.Process(
            target=fill, args=(self._manifest, self._backbone, str(root), start, start + count)
        )
        process.start()
        return process

    def whole(self, root: Path, start: int, count: int) -> float:
        """An undisturbed run; its seconds."""
        clock = time.perf_counter()
        process = self._start(root, start, count)
        process.join()
        if process.exitcode:
            raise RuntimeError(f"an undisturbed run into {root} ended with {process.exitcode}")
        return time.perf_counter() - clock

    def killed(self, root: Path, start: int, count: int, after: float | None) -> bool:
        """A run that is killed after so many seconds, if it has not got through by then."""
        process = self._start(root, start, count)
        process.join(after)
        if process.exitcode is None:
            process.kill()
            process.join()
            return True
        if process.exitcode:
            raise RuntimeError(f"a run into {root} failed by itself with {process.exitcode}")
        return False

    def stored(self, root: Path, start: int, count: int) -> int:
        """How many of the rows are in the store."""
        store, digests = FeatureStore(root), self._digests(start, count)
        return max(int(store.present(space, digests).sum()) for space in self._spaces)

    def features(self, root: Path, start: int, count: int) -> tuple[np.ndarray, str]:
        """The stored rows as they are, and the precision class that they are stored in."""
        for space in self._spaces:
            try:
                return FeatureStore(root).read(space, self._digests(start, count))[0], space.precision
            except MissingRows:
                continue
        raise RuntimeError(f"rows are missing in {root} after a run that got through")

    def _digests(self, start: int, count: int) -> list[str]:
        return self._table.digests(self._rows[start : start + count])


def fill(manifest: str, backbone: str, root: str, start: int, stop: int) -> None:
    """What a forked process does: extract these rows."""
    table, rows = load(Path(manifest))
    registry, store = registry_here(), FeatureStore(Path(root))
    loader, network = registry.loader("text"), registry.backbone(backbone, "text").build()
    extract(table, rows[start:stop], loader, network, store, engine=fast_engine())


def _faults(root: Path) -> list[str]:
    return FeatureStore(root).verify() if root.is_dir() else []
