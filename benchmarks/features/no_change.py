"""Seconds of version and extract together where nothing has changed: many texts in a table, many image files."""

from __future__ import annotations

import shutil
from statistics import median
from typing import Any

from benchmarks.features.material import photos, texts
from benchmarks.features.models import timm_folder, tiny_bert_folder
from benchmarks.features.processes import child
from benchmarks.features.setting import Setup, say

CASES = ("texts", "images")
SMALL = (160, 120)  # pixels: a rerun reads no image, and the first run should not take long


def measure(case: str, setup: Setup) -> dict[str, Any]:
    """A first run, then reruns, each in a process of its own: seconds of the steps, and of the process."""
    if case == "texts":
        count = setup.sized(50_000, 500)
        data, backbone = texts(setup, count, mean=16.0), tiny_bert_folder(setup)
    else:
        count = setup.sized(10_000, 100)
        data, backbone = photos(setup, count, SMALL), timm_folder(setup, "mobilenetv3_small_050")
    out = setup.cache / "no-change" / case
    shutil.rmtree(out, ignore_errors=True)
    runs = []
    for _ in range(1 + setup.sized(3, 1)):
        ran = child("benchmarks.features.subjects", ["steps", str(data), str(backbone), str(out)])
        both = round(ran.answer["version"] + ran.answer["extract"], 3)
        say(f"  {case}: {both} s, {ran.answer['computed']} computed")
        runs.append({**ran.answer, "version_and_extract": both, "process_seconds": round(ran.seconds, 2)})
    wrong = [run["computed"] for run in runs[1:] if run["computed"]]
    return {
        "samples": count,
        "backbone": backbone.name,
        "first": runs[0],
        "reruns": runs[1:],
        "seconds": median(run["version_and_extract"] for run in runs[1:]),
        "process_seconds": median(run["process_seconds"] for run in runs[1:]),
        "computed_again": sum(wrong),
    }
