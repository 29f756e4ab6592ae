"""`tl run` on real data sets of each modality: metrics with intervals against both floors, seconds per step.

    python -m benchmarks.end_to_end [--data FOLDER] [--only NAME ...]

FOLDER (default: $TL_SHARED_DATA or ../shared/data) holds datasets/ and weights/. Each set runs twice with a feature
store of its own: first from nothing, then again with every feature stored. Results: benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

# name: (data set, backbones under weights/ or by name, further settings)
CASES: dict[str, tuple[str, list[str], list[str]]] = {
    "hymenoptera": ("hymenoptera", ["mobilenetv2_100_imagenet", "mobilenetv2_100_inat_insects"], []),
    "caltech20": ("caltech20", ["mobilenetv2_100_imagenet", "mobilenet_v1_050_160_imagenet"], []),
    "sign_digits": ("sign_digits", ["mobilenetv1_100_imagenet"], []),
    "trec6": ("trec6", [], []),
    "banking77": ("banking77", [], []),
    "masakhanews_fra": ("masakhanews_fra", ["minilm_l6_vocab15k"], ["data.text=text"]),
    "esc10": ("esc10", ["yamnet_audioset"], []),
    "fsdd": ("fsdd", ["yamnet_audioset"], ["data.group=speaker"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("TL_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--only", nargs="*", choices=sorted(CASES), default=sorted(CASES))
    arguments = parser.parse_args()
    if not (arguments.data / "datasets").is_dir():
        sys.exit(f"no data sets in {arguments.data}; set TL_SHARED_DATA or --data")
    path = RESULTS / "end_to_end.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"cases": {}}
    results["machine"] = machine()
    for name in arguments.only:
        results["cases"][name] = run_case(arguments.data, name)
        RESULTS.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        (RESULTS / "end_to_end.md").write_text(table(results))
    print(table(results))


def run_case(data: Path, name: str) -> dict[str, Any]:
    """One data set: the metrics, the command, and the seconds of a first run and of a rerun."""
    dataset, backbones, settings = CASES[name]
    command = ["tl", "run", "--data", f"datasets/{dataset}"]
    for backbone in backbones:
        command += ["--backbone", f"weights/{backbone}"]
    for setting in settings:
        command += ["--set", setting]
    with tempfile.TemporaryDirectory() as scratch:
        out, seconds = Path(scratch) / "out", []
        for _ in range(2):
            started = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "tl_flows", *command[1:], "--out", str(out)],
                cwd=data,
                env={**os.environ, "XDG_CACHE_HOME": str(Path(scratch) / "cache")},
                check=True,
            )
            seconds.append(round(time.perf_counter() - started, 1))
        steps = {step: json.loads((out / ".tl" / "run" / f"{step}.json").read_text()) for step in STEPS}
        return {
            "command": " ".join(command),
            "metrics": json.loads((out / "metrics.json").read_text()),
            "chosen": steps["select"]["chosen"],
            "first_run_seconds": seconds[0],
            "rerun_seconds": seconds[1],
            "rerun_step_seconds": {step: facts["seconds"] for step, facts in steps.items()},
            "rerun_computed": steps["extract"]["computed"],
        }


STEPS = ("version", "select", "extract", "tune", "evaluate")


def machine() -> dict[str, str]:
    """What the numbers were measured on."""
    cpu = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    return {
        "cpu": cpu,
        "cores": str(os.cpu_count()),
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown page."""
    facts = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    lines = [
        "# `tl run` on real data",
        "",
        f"{facts}. Made by `python -m benchmarks.end_to_end` in the data folder; intervals cover 90%.",
        "Seconds are whole commands with Prefect's temporary server (5-12 s), on a machine shared with other work:",
        "they show the order of magnitude, and that a rerun computes no feature.",
        "",
        "| data | backbone | test rows | accuracy | random weights | majority | first run s | rerun s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, case in sorted(results["cases"].items()):
        m = case["metrics"]
        lines.append(
            f"| {name} | {case['chosen']} | {m['n_test']:.0f} | {m['accuracy']:.3f} "
            f"({m['accuracy_low']:.3f}-{m['accuracy_high']:.3f}) | {m['floor_random_init']:.3f} | "
            f"{m['floor_majority']:.3f} | {case['first_run_seconds']} | {case['rerun_seconds']} |"
        )
    lines += ["", "```", *(case["command"] for _, case in sorted(results["cases"].items())), "```", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
