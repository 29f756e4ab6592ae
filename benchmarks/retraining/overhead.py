"""What Prefect, DVC and git cost: nights and runs through `tl`, against the same steps as plain Python functions.

    python -m benchmarks.retraining.overhead [--rounds 5] [--folder FOLDER] [--render]

A project over the sample texts of this repository (one backbone, a probe, no diagnostics). In each round, in turn:

- `night`: `tl retrain` where nothing is new, with a Prefect server that runs, as `tl schedule` starts it;
- `stored`: all five steps stale, all features stored, by `tl run` and by plain calls of tl_core.steps in one process;
- `empty`: the same with an empty store;
- parts of these, each alone: imports, a server's start, a DVC process, DVC's status, git.

Seconds are wall time and CPU time of the process and all that it started (not of the server, which runs before and
after), medians over the rounds; ratios are taken within a round. FOLDER is made anew.
Results: benchmarks/results/retraining_overhead.{json,md}. About 10 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_core.workspace import STEPS, write_json

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
GOAL_SECONDS = 5.0
SETTINGS = {  # little work, so that what stands around it shows
    "select.backbones": ["all-minilm-l6-v2-first3"],
    "tune.strategy": "probe",
    "tune.curve": False,
    "evaluate.diagnostics": False,
    "evaluate.robustness": 0,
    "evaluate.explain": 0,
}

PLAIN = """
import sys
from pathlib import Path
import tl_core.steps
from tl_core.config import load_config
from tl_core.registry import load_registry
from tl_core.workspace import STEPS, Workspace
root, out = map(Path, sys.argv[1:])
config, registry = load_config(root / "params.yaml"), load_registry()
config = config.model_copy(update={"data": config.data.model_copy(update={"path": str(root / config.data.path)})})
for step in STEPS:
    getattr(tl_core.steps, step)(config, registry, Workspace(out, out / "store", out / "cache"))
"""
STATUS = """
import sys, time
from pathlib import Path
from tl_core.workspace import STEPS
from tl_flows.versioning import stale_stages
stale_stages(Path(sys.argv[1]), STEPS)
began = time.perf_counter()
assert not stale_stages(Path(sys.argv[1]), STEPS)
print(time.perf_counter() - began)
"""
SERVER = """
import sys, time
from pathlib import Path
from tl_flows.temporary_server import LocalServer
began = time.perf_counter()
server = LocalServer(Path(sys.argv[1]))
server.wait()
print(time.perf_counter() - began)
"""


@dataclass(frozen=True)
class Took:
    """Wall and CPU seconds of a command with all that it started; told: what it printed."""

    wall: float
    cpu: float
    told: str = ""


def took(command: list[str], folder: Path) -> Took:
    """Run a command to its end. Raises RuntimeError with its lines where it fails."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 3):
        raise RuntimeError(f"{' '.join(command)[:200]}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(wall, cpu, done.stdout)


def tl(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tl_flows", *arguments]


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def made(folder: Path) -> Path:
    """A committed project over the sample texts, which has been retrained once."""
    from tl_flows.git import git
    from tl_flows.params import edit_params
    from tl_flows.scaffold import init_project

    clone, project = folder / "clone", folder / "texts"
    git(folder, "clone", "--quiet", "--shared", str(ROOT), str(clone))
    shutil.copytree(ROOT / "samples" / "store", clone / "samples" / "store", dirs_exist_ok=True)
    took([sys.executable, "-m", "dvc", "pull", "--quiet", "data.dvc"], clone)
    project.mkdir()
    git(project, "init", "--quiet", "--initial-branch=main")
    shutil.copytree(clone / "data" / "text", project / "data")
    list(init_project(project, project / "data", git=True))
    edit_params(project / "params.yaml", SETTINGS)
    git(project, "add", "--all")
    git(project, "-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "--quiet", "-m", "Start")
    took(tl("retrain"), project)
    return project


def night(project: Path) -> dict[str, float]:
    """A retrain where nothing is new: of the whole command, and from the flow's start on."""
    whole = took(tl("retrain", "--json"), project)
    outcome = json.loads(whole.told)
    if outcome["state"] != "nothing new":
        raise RuntimeError(f"the night ended as {outcome['state']}: {outcome['reason']}")
    return {"wall": whole.wall, "cpu": whole.cpu, "flow": outcome["seconds"]}


def runs(project: Path, plain: Path, share: float, empty: bool) -> dict[str, float]:
    """The five steps by `tl run` and by plain calls, after a change that makes all of them stale."""
    from tl_flows.params import edit_params

    edit_params(project / "params.yaml", {"data.test_fraction": round(share, 4)})
    shutil.rmtree(plain / "artifacts", ignore_errors=True)
    if empty:
        for store in (project / ".tl" / "store", plain / "store"):
            shutil.rmtree(store, ignore_errors=True)
    through = took(tl("run"), project)
    steps = [json.loads((project / ".tl" / "run" / f"{step}.json").read_text()) for step in STEPS]
    direct = took(python(PLAIN, project, plain), project)
    return {
        "wall": through.wall,
        "cpu": through.cpu,
        "steps": sum(step["seconds"] for step in steps),
        "plain": direct.wall,
        "plain_cpu": direct.cpu,
        "ratio": through.wall / direct.wall,
        "cpu_ratio": through.cpu / direct.cpu,
    }


def parts(project: Path, folder: Path, number: int) -> dict[str, float]:
    """Seconds of what a night and a run are made of, each alone."""
    bare = took(python("pass"), folder).wall
    home = folder / f"server-{number}"
    kinds: dict[str, Callable[[], float]] = {
        "python starts": lambda: bare,
        "import of the tl command": lambda: took(python("import tl_flows.cli"), folder).wall - bare,
        "import of Prefect": lambda: took(python("import prefect.flows, prefect.tasks"), folder).wall - bare,
        "import of DVC": lambda: took(python("import dvc.repo"), folder).wall - bare,
        "import of the steps and torch": lambda: took(python("from tl_core.steps import evaluate"), folder).wall - bare,
        "start of a temporary server, new database": lambda: float(took(python(SERVER, home), folder).told),
        "start of a temporary server, database there": lambda: float(took(python(SERVER, home), folder).told),
        "`dvc repro` of a stage that is up to date": lambda: (
            took([sys.executable, "-m", "dvc", "repro", "--single-item", "version"], project).wall
        ),
        "DVC's status of the five stages, in process": lambda: float(took(python(STATUS, project), project).told),
        "a git command": lambda: took(["git", "rev-parse", "HEAD"], project).wall,
    }
    return {name: measure() for name, measure in kinds.items()}


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def page(kept: dict[str, Any]) -> str:
    """The medians as tables."""
    quiet, stored, empty, alone = (medians(kept[name]) for name in ("night", "stored", "empty", "parts"))
    count = len(kept["night"])
    lines = [
        "# What orchestration costs",
        "",
        f"Medians of {count} rounds of `python -m benchmarks.retraining.overhead --rounds {count}`, in seconds; "
        f"{kept['machine']}.",
        "",
        f"A night without news ends {quiet['flow']:.1f} s after the flow starts (goal: under {GOAL_SECONDS:.0f} s, "
        f"with a server that runs); the whole command takes {quiet['wall']:.1f} s, {quiet['cpu']:.1f} s of them CPU.",
        "",
        "| five stale steps | through Prefect and DVC | CPU | inside the steps | plain functions, one process | CPU | "
        "ratio | CPU ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in (("features stored", stored), ("store empty", empty)):
        cells = [one[key] for key in ("wall", "cpu", "steps", "plain", "plain_cpu")]
        shown = " | ".join(f"{value:.1f}" for value in cells)
        lines.append(f"| {name} | {shown} | {one['ratio']:.2f} | {one['cpu_ratio']:.2f} |")
    lines += ["", "| alone | seconds |", "|---|---|"]
    lines += [f"| {name} | {seconds:.2f} |" for name, seconds in alone.items()]
    return "\n".join(lines) + "\n"


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """All cases, interleaved, with one server that runs."""
    from tl_flows import prefect_env
    from tl_flows.temporary_server import LocalServer

    from benchmarks.end_to_end import machine

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    prefect_env.configure(folder / "prefect", {})
    server = LocalServer(folder / "prefect")
    server.wait()
    os.environ["PREFECT_API_URL"] = server.url
    told = machine()
    kept: dict[str, Any] = {"machine": ", ".join(f"{key} {value}" for key, value in told.items())}
    kept |= {"night": [], "stored": [], "empty": [], "parts": []}
    project = made(folder)
    took(tl("run"), project)
    for number in range(rounds):
        share = 0.21 + 0.004 * number  # never one that DVC has run before
        kept["empty"].append(runs(project, folder / "plain", share, empty=True))
        kept["stored"].append(runs(project, folder / "plain", share + 0.002, empty=False))
        kept["parts"].append(parts(project, folder, number))
        kept["night"].append(night(folder / "texts"))
        print(json.dumps({name: kept[name][-1] for name in ("night", "stored", "empty")}), flush=True)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/tl-overhead"))
    parser.add_argument("--results", type=Path, default=RESULTS / "retraining_overhead.json")
    parser.add_argument("--render", action="store_true", help="only write the tables of what is kept")
    arguments = parser.parse_args()
    if not arguments.render:
        write_json(arguments.results, measure(arguments.folder, arguments.rounds))
    kept = json.loads(arguments.results.read_text(encoding="utf-8"))
    arguments.results.with_suffix(".md").write_text(page(kept), encoding="utf-8")


if __name__ == "__main__":
    main()
