"""How long evaluation with all diagnostics takes where every feature is cached.

    python -m benchmarks.evaluation.speed [--data FOLDER]

Banking77, 13,083 texts in 77 classes, with a small MiniLM and a probe: `evaluate` with everything but robustness and
explanations, which run the network again, three times in one process; the first also imports libraries. Seconds by the
clock and of the CPU, on as many threads as torch takes. Results: benchmarks/results/evaluation_speed.{json,md}.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from tl_core.config import validate
from tl_core.registry import load_registry
from tl_core.steps import evaluate, extract, select, tune, version
from tl_core.workspace import Workspace, write_json

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "evaluation_speed.json"
TIMES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("TL_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    found = run(arguments.data)
    write_json(arguments.results, found)
    arguments.results.with_suffix(".md").write_text(table(found))
    print(table(found))


def run(data: Path) -> dict[str, Any]:
    """Rows, classes, width, threads, and the seconds of each evaluation."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = validate({
            "data": {"path": str(data / "datasets" / "banking77_full")},
            "select": {"backbones": ["all-minilm-l6-v2-first3"]},
            "tune": {"strategy": "probe", "curve": False},
            "evaluate": {"robustness": 0, "explain": 0},
        })  # fmt: skip
        workspace, registry = Workspace(folder / "run", folder / "store", folder / "cache"), load_registry()
        rows = 0
        for step in (version, select, extract, tune):
            done = step(config, registry, workspace)
            rows = done.get("computed", 0) + done.get("reused", 0) or rows
        seconds = []
        for _ in range(TIMES):
            clock, cpu = time.perf_counter(), time.process_time()
            evaluate(config, registry, workspace)
            seconds.append([round(time.perf_counter() - clock, 1), round(time.process_time() - cpu, 1)])
    return {"rows": rows, "threads": torch.get_num_threads(), "seconds": seconds}


def table(found: dict[str, Any]) -> str:
    """The page, Markdown."""
    lines = [
        "# Evaluation with all diagnostics, features cached",
        "",
        f"{found['rows']:,} rows in 77 classes, {found['threads']} threads; robustness and explanations aside.",
        "",
        "| run | seconds by the clock | CPU seconds |",
        "|---|---|---|",
        *(f"| {number} | {clock} | {cpu} |" for number, (clock, cpu) in enumerate(found["seconds"], 1)),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
