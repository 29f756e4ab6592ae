"""Two processes that extract the same and overlapping data into one store at once, against one alone."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.features.material import load, manifest_of, texts
from benchmarks.features.plugins import registry_here
from benchmarks.features.setting import Setup, fast_engine, say
from tl_core.extraction import DTYPES, extract, space_of
from tl_core.store import FeatureStore

CASES = ("same", "overlapping")
WARM = 16
PATIENCE = 600.0  # seconds until a run that gives no answer counts as hung


def measure(case: str, setup: Setup) -> dict[str, Any]:
    """Rows computed in total and twice, wall time of both, of one alone, and faults that verify shows."""
    count = setup.sized(2000, 64)
    manifest = manifest_of(texts(setup, count + WARM), setup)
    spans = {"same": [(0, count), (0, count)], "overlapping": [(0, 3 * count // 4), (count // 4, count)]}[case]
    folder = setup.cache / "two-processes" / case
    shutil.rmtree(folder, ignore_errors=True)
    given = (str(manifest), setup.text_encoder)
    _together(folder / "warm", [(-WARM, 0)], given)  # the converted model, which no run should have to wait for
    alone = _fresh(folder, "alone", [(0, count)], given)
    both = _fresh(folder, "both", spans, given)
    computed = sum(run["computed"] for run in both["runs"])
    found = {
        "rows": count,
        "alone": {key: alone[key] for key in ("seconds", "runs")},
        "both": {key: both[key] for key in ("seconds", "runs")},
        "computed": computed,
        "computed_twice": computed - count,
        "over_one_alone": round(both["seconds"] / alone["seconds"], 3),
        "verify_faults": both["faults"],
        "rows_equal": bool(both["rows"].tobytes() == alone["rows"].tobytes()),
    }
    say(f"  {case}: {computed - count} rows twice, {found['over_one_alone']} of one alone")
    return found


def _fresh(folder: Path, name: str, spans: list[tuple[int, int]], given: tuple[str, str]) -> dict[str, Any]:
    """The runs into a copy of the warm store, and what lies in it afterwards."""
    root = folder / name
    shutil.copytree(folder / "warm", root)
    found = _together(root, spans, given)
    return {**found, "faults": FeatureStore(root).verify(), "rows": _rows(root, spans, given)}


def _together(root: Path, spans: list[tuple[int, int]], given: tuple[str, str]) -> dict[str, Any]:
    """Processes that begin to extract at the same moment; seconds until the last is done."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(len(spans)), context.Queue()
    processes = [context.Process(target=fill, args=(str(root), span, given, barrier, answers)) for span in spans]
    for process in processes:
        process.start()
    runs = [answers.get(timeout=PATIENCE) for _ in processes]
    for process in processes:
        process.join()
    faults = [run["failed"] for run in runs if "failed" in run]
    if faults:
        raise RuntimeError("; ".join(faults))
    seconds = max(run["ended"] for run in runs) - min(run["began"] for run in runs)
    kept = ("computed", "reused", "seconds", "engine", "precision")
    return {"seconds": round(seconds, 3), "runs": [{key: run[key] for key in kept} for run in runs]}


def fill(
    root: str, span: tuple[int, int], given: tuple[str, str], barrier: Barrier, answers: Queue[dict[str, Any]]
) -> None:
    """One process: build, wait for the other, extract. A span counts from after the warm-up's texts."""
    try:
        registry = registry_here()
        manifest, rows = load(Path(given[0]))
        loader, backbone = registry.loader("text"), registry.backbone(given[1], "text").build()
        barrier.wait(300)
        began = time.time()  # the clock that both processes share
        picked = rows[span[0] + WARM : span[1] + WARM]
        done = extract(manifest, picked, loader, backbone, FeatureStore(Path(root)), engine=fast_engine())
        answers.put(
            {
                "began": began,
                "ended": time.time(),
                "computed": done.computed,
                "reused": done.reused,
                "seconds": round(done.seconds, 3),
                "engine": done.engine,
                "precision": done.precision,
            }
        )
    except Exception as error:
        answers.put({"failed": f"{type(error).__name__}: {error}"})
        raise


def _rows(root: Path, spans: list[tuple[int, int]], given: tuple[str, str]) -> np.ndarray:
    """All rows asked for, as they are stored."""
    backbone = registry_here().backbone(given[1], "text").build()
    manifest, rows = load(Path(given[0]))
    digests = manifest.digests(rows[WARM + min(start for start, _ in spans) : WARM + max(stop for _, stop in spans)])
    store = FeatureStore(root)
    space = max((space_of(backbone, precision) for precision in DTYPES), key=lambda s: store.present(s, digests).sum())
    return store.read(space, digests)[0]
