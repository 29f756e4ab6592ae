"""Peak memory of extraction at a few and at ten times as many samples, and its curve over time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks.features.material import texts
from benchmarks.features.models import tiny_bert_folder
from benchmarks.features.plugins import registry_here
from benchmarks.features.processes import child
from benchmarks.features.setting import Setup, say
from benchmarks.features.vectors import VectorLoader
from tl_core.config import validate
from tl_core.manifest import scan

CASES = ("vectors", "texts")
POINTS = 120  # of a curve that are kept


def measure(case: str, setup: Setup) -> dict[str, Any]:
    """One process a size; both read the same manifest, so that only the extraction differs."""
    sizes = (200, 2000) if setup.quick else (10_000, 100_000)
    table, manifest = _manifest(case, sizes[-1], setup)
    backbone = str(tiny_bert_folder(setup)) if case == "texts" else "-"
    runs = []
    for size in sizes:
        store = setup.cache / "memory" / f"{case}-{size}"
        shutil.rmtree(store, ignore_errors=True)
        ran = child(
            "benchmarks.features.subjects", ["fill", str(manifest), case, backbone, str(store), str(size)], every=0.1
        )
        shutil.rmtree(store, ignore_errors=True)
        say(f"  {size} samples: {ran.answer['peak_bytes'] / 2**20:.0f} MiB at most, {ran.answer['seconds']} s")
        runs.append(
            {
                "samples": size,
                "peak_bytes": ran.answer["peak_bytes"],
                "peak_private_bytes": max((private for _, _, private in ran.curve), default=0),
                "seconds": ran.answer["seconds"],
                "engine": ran.answer["engine"],
                "curve": thinned(ran.curve, POINTS),
            }
        )
    return {
        "data": table.name,
        "runs": runs,
        "growth": round(runs[-1]["peak_bytes"] / runs[0]["peak_bytes"] - 1, 4),
        "private_growth": round(runs[-1]["peak_private_bytes"] / max(1, runs[0]["peak_private_bytes"]) - 1, 4),
    }


def thinned(curve: tuple[tuple[float, int, int], ...], points: int) -> list[list[float]]:
    """At most so many points of a curve, evenly taken, the last among them: [seconds, MiB, private MiB] each."""
    if not curve:
        return []
    n = min(points, len(curve))
    picked = [round(i * (len(curve) - 1) / max(1, n - 1)) for i in range(n)]
    return [[curve[i][0], round(curve[i][1] / 2**20, 1), round(curve[i][2] / 2**20, 1)] for i in picked]


def _manifest(case: str, count: int, setup: Setup) -> tuple[Path, Path]:
    table = texts(setup, count, mean=16.0)
    path = table.parent / f"{case}.manifest.parquet"
    if not path.is_file():
        loaders = [VectorLoader()] if case == "vectors" else registry_here().loaders()
        scan(table, validate({}), loaders, base=path.parent, progress=False).save(path)
    return table, path
