"""The feature store and the engines measured, against the loops that users write and against the engines' own limit.

    python -m benchmarks.features [PART[:CASE] ...] [--quick] [--resume] [--data FOLDER] [--cache FOLDER]
    python -m benchmarks.features --report

Every case runs in a process of its own and is kept in benchmarks/results/features.json as soon as it is done; one that
fails is said and left out, and the others go on. --resume leaves out what is there already. --report writes the plots
and the tables of docs/performance.md from the results. FOLDER (default: $TL_SHARED_DATA or ../shared/data) holds
datasets/ and weights/; where it is missing, samples are made up and what needs real ones is left out.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.end_to_end import RESULTS
from benchmarks.features.parts import PARTS, chosen
from benchmarks.features.setting import ROOT, say
from tl_core.errors import UserError
from tl_core.weights import read_json
from tl_core.workspace import write_json

QUIET = {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
PAGE = ROOT / "docs" / "performance.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART[:CASE]", help=", ".join(PARTS))
    data = os.environ.get("TL_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--cache", type=Path, default=ROOT / ".tl" / "benchmarks" / "features")
    parser.add_argument("--results", type=Path, help="default: benchmarks/results, or with --quick inside the cache")
    parser.add_argument("--text-encoder", default="all-minilm-l6-v2", help="backbone of the text parts, or its folder")
    parser.add_argument("--quick", action="store_true", help="a small part of everything, to see that it runs")
    parser.add_argument("--resume", action="store_true", help="only what the results don't hold yet")
    parser.add_argument(
        "--report", action="store_true", help="write tables and plots; measure nothing (with --quick into the cache)"
    )
    arguments = parser.parse_args()
    cache = arguments.cache.resolve() / ("quick" if arguments.quick else "full")
    folder = arguments.results or (cache if arguments.quick else RESULTS)
    try:
        if arguments.report:
            from benchmarks.features.report import write_report

            write_report(folder, PAGE, folder / PAGE.name if arguments.quick else PAGE)
        elif failed := run(arguments, cache, folder / "features.json"):
            sys.exit(f"benchmarks.features: not measured: {', '.join(failed)}")
    except UserError as error:
        sys.exit(f"benchmarks.features: {error}")


def run(arguments: argparse.Namespace, cache: Path, path: Path) -> list[str]:
    """Measure what is asked for; returns the cases that failed."""
    failed = []
    for part, case in chosen(arguments.parts):
        if arguments.resume and case in kept(path).get(part, {}):
            continue
        say(f"{part}:{case}")
        clock = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "case.json"
            command = [sys.executable, "-m", "benchmarks.features.worker", part, case, str(out)]
            command += ["--data", str(arguments.data.resolve()), "--cache", str(cache)]
            command += ["--text-encoder", arguments.text_encoder, *(["--quick"] if arguments.quick else [])]
            ended = subprocess.run(command, cwd=ROOT, env={**os.environ, **QUIET}, check=False)
            if ended.returncode or not out.is_file():
                failed.append(f"{part}:{case}")
                continue
            found = read_json(out)
        found["minutes"] = round((time.perf_counter() - clock) / 60, 2)
        found["command"] = shlex.join(["python", "-m", "benchmarks.features", f"{part}:{case}"])
        keep(path, part, case, found)
        say(f"  done in {found['minutes']} minutes, kept in {path}")
    return failed


def kept(path: Path) -> dict[str, Any]:
    """The results so far, by part and case."""
    return read_json(path) if path.is_file() else {}


def keep(path: Path, part: str, case: str, found: dict[str, Any]) -> None:
    """Add one case to the results, which another run may have added to."""
    results = kept(path)
    results.setdefault(part, {})[case] = found
    write_json(path, results)


if __name__ == "__main__":
    main()
