"""Retrains that are killed at random instants: does the next one end as if nothing had happened?

    python -m benchmarks.retraining.kills [--kills 40] [--folder FOLDER] [--seed 0] [--render]

A small text project with a first model gets further rows, and is retrained once undisturbed. Then copies of it are
retrained, and at a random instant of that something is killed with SIGKILL: the process of the retrain (`worker`),
Prefect's server (`server`), DVC or the step that it runs (`step`), or all of them at once (`machine`), as a power cut
does. The retrain is called again until it ends. It has to end with the undisturbed one's state and decision, tags,
dvc.lock (which holds the digest of every output) and metrics; the user's files, branch and data are as before; nothing
holds a lock, no process is left, and Prefect shows every run as ended.
FOLDER is made anew. Results: benchmarks/results/retraining_kills.{json,md}. About a minute a kill on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from tl_core.workspace import write_json

RESULTS = Path(__file__).resolve().parents[1] / "results"
RETRAIN = Path(".tl", "retrain")
METRICS = "artifacts/evaluate/metrics.json"
KINDS = ("worker", "server", "step", "machine")
ALL = ("worker", "machine")  # a kill of these ends the retrain
ENDED = ("COMPLETED", "CRASHED", "FAILED")
TRIES = 3
STOP_SECONDS = 15.0  # what Prefect's server may take to write what it was told
SETTINGS = {
    "select.backbones": ["all-minilm-l6-v2-first3"],
    "tune.strategy": "probe",
    "tune.curve": False,
    "evaluate.diagnostics": False,
    "evaluate.explain": 0,
    "evaluate.robustness": 0,
    "evaluate.bootstrap": 200,
}
TOPICS = {
    "parcel": ("my parcel {n} has not arrived", "where is box {n}", "the courier lost {n}", "no tracking of {n}"),
    "refund": ("please refund order {n}", "i want my money back for {n}", "when is {n} paid back", "{n} charged twice"),
    "login": ("can't log in as {n}", "password of {n} is refused", "account {n} is locked", "reset the key of {n}"),
}


@dataclass(frozen=True)
class Killed:
    """One disturbed retrain.

    share: of the undisturbed one's seconds, when it was killed; runs: until one ended; faults: what was not right.
    """

    kind: str
    share: float
    seconds: float
    runs: int
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Left:
    """What a retrain leaves that has to be the same whatever was killed on the way."""

    state: str
    decision: dict[str, Any]
    tags: str
    lock: str
    metrics: str


def write_rows(project: Path, count: int, seed: int) -> None:
    """The first so many rows of a table that only grows."""
    draw = random.Random(seed)
    rows = ["text,label"]
    for i in range(count):
        topic = list(TOPICS)[i % len(TOPICS)]
        rows.append(f"{draw.choice(TOPICS[topic]).format(n=draw.randrange(1000, 9999))},{topic}")
    table = project / "data" / "messages.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")


def made(project: Path, rows: int) -> Path:
    """A committed project that was never run."""
    from tl_flows.git import git
    from tl_flows.params import edit_params
    from tl_flows.scaffold import init_project

    project.mkdir(parents=True)
    git(project, "init", "--quiet", "--initial-branch=main")
    write_rows(project, rows, seed=0)
    list(init_project(project, project / "data", git=True))
    edit_params(project / "params.yaml", SETTINGS)
    git(project, "add", "--all")
    git(project, "-c", "user.name=kills", "-c", "user.email=kills@localhost", "commit", "--quiet", "-m", "Start")
    return project


def start(project: Path) -> subprocess.Popen[bytes]:
    """A retrain with a server of its own, whose lines go to a file."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (project.parent / f"{project.name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tl_flows", "retrain"],
            cwd=project,
            env=environment,
            stdout=log,
            stderr=log,
        )


def finish(project: Path) -> float:
    """Retrain to the end; its seconds. Raises RuntimeError where it fails."""
    began = time.monotonic()
    code = start(project).wait()
    if code not in (0, 3):
        raise RuntimeError(f"exit code {code}; its lines: {project.parent / project.name}.log")
    return time.monotonic() - began


def left(project: Path) -> Left:
    """What is there of the version that the last retrain ended with."""
    from tl_flows.git import git

    told = json.loads((project / RETRAIN / "outcome.json").read_text(encoding="utf-8"))
    tags = git(project, "for-each-ref", "--format=%(refname:short)", "refs/tags")
    lock, metrics = (git(project, "show", f"model@{told['version']}.0.0:./{name}") for name in ("dvc.lock", METRICS))
    return Left(told["state"], told["decision"], tags, lock, metrics)


def users(project: Path) -> tuple[str, str, str]:
    """What is the user's: branch, status, data."""
    from tl_flows.git import git

    table = project / "data" / "messages.csv"
    head = git(project, "rev-parse", "HEAD", "--abbrev-ref", "HEAD")
    return head, git(project, "status", "--porcelain"), table.read_text(encoding="utf-8")


def disturbed(project: Path, calm: Left, calm_seconds: float, kind: str, share: float, draw: random.Random) -> Killed:
    """Retrain, kill something at a share of the seconds that it takes, and retrain until one ends."""
    began, before = time.monotonic(), users(project)
    worker = start(project)
    hit = kill(worker, kind, share * calm_seconds, draw)
    code, runs = worker.wait(), 1
    while not ended(project, worker.pid) and runs < TRIES:
        worker = start(project)
        code, runs = worker.wait(), runs + 1
    seconds = time.monotonic() - began
    faults = [f"{name} differs" for name, value in asdict(calm).items() if asdict(left(project))[name] != value]
    if code not in (0, 3):  # killed in its last second: the next one, on a calm night, tells the server
        finish(project)
    faults += untidy(project, before)
    if kind in ALL and runs == 1:  # it had told its outcome before
        hit = False
    return Killed(kind if hit else f"{kind}, too late", round(share, 3), round(seconds, 1), runs, tuple(faults))


def ended(project: Path, pid: int) -> bool:
    """Whether the retrain of that process has told its outcome, and it was no failure."""
    try:
        last = json.loads((project / RETRAIN / "attempt.json").read_text(encoding="utf-8"))
    except OSError:
        return False
    return bool(last["pid"] == pid and last["state"] not in ("", "failed"))


def kill(worker: subprocess.Popen[bytes], kind: str, instant: float, draw: random.Random) -> bool:
    """Wait until the instant, in seconds from now, and kill; False where the retrain has ended before."""
    time.sleep(instant)
    while worker.poll() is None:
        with suppress(psutil.Error):
            found = victims(worker.pid, kind, draw)
            for one in found:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            if found:
                return True
        time.sleep(0.02)
    return False


def victims(pid: int, kind: str, draw: random.Random) -> list[psutil.Process]:
    """The processes of a retrain to kill now; none where there is no such one at this instant."""
    worker = psutil.Process(pid)
    if kind == "worker":
        return [worker]
    alive = [one for one in worker.children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]
    family = {one: command for one in alive if (command := one.cmdline())}  # empty where it has ended meanwhile
    servers = [one for one, command in family.items() if "tl_flows.temporary_server" in command]
    if kind == "server":
        return servers
    if kind == "step":
        stages = [
            one for one, command in family.items() if one not in servers and Path(command[0]).name.startswith("python")
        ]
        return [draw.choice(stages)] if stages else []
    return [worker, *family]


def untidy(project: Path, before: tuple[str, str, str]) -> Iterator[str]:
    """What is left that has to be gone, or is gone that has to be left."""
    if users(project) != before:
        yield "the user's branch, files or data differ"
    for lock in (project / RETRAIN / "lock", project / ".git" / "tl-registry.lock"):
        try:
            FileLock(lock).acquire(timeout=0).lock.release()
        except Timeout:
            yield f"{lock.name} is held"
    yield from (f"{lock.relative_to(project)} is left" for lock in (project / ".git").rglob("index.lock"))
    _, alive = psutil.wait_procs(processes(project), timeout=STOP_SECONDS)
    yield from (f"process {one.pid} is left" for one in alive)
    states = flow_runs(project)
    if states[-1][0] != "COMPLETED" or any(kind not in ENDED for kind, _ in states):
        yield f"the server shows {', '.join(name for _, name in states)}"


def processes(project: Path) -> list[psutil.Process]:
    """All that work in the project's folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(project.resolve()):
                found.append(process)
    return found


def flow_runs(project: Path) -> list[tuple[str, str]]:
    """Type and name of the state of each flow run that Prefect knows, in order of their start."""
    with closing(sqlite3.connect(project / ".prefect" / "prefect.db")) as database:
        return list(database.execute("select state_type, state_name from flow_run order by start_time"))


def page(kept: dict[str, Any]) -> str:
    """The kills as a table."""
    kills = kept["kills"]
    right = sum(not one["faults"] for one in kills)
    lines = [
        "# Retrains killed at random instants",
        "",
        f"{right} of {len(kills)} ended as the undisturbed one (`python -m benchmarks.retraining.kills --kills "
        f"{len(kills)} --seed {kept['seed']}`): the same state, decision, tags, dvc.lock and metrics; the user's files "
        "as before; no lock held, no process left; Prefect shows every run as ended.",
        "",
        f"The undisturbed retrain took {kept['calm_seconds']:.0f} s. Seconds are those of all runs until one ended.",
        "",
        "| killed | kills | instants, share of its seconds | ended right | ended by the same run | median seconds |",
        "|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(one["kind"] for one in kills):
        of_kind = [one for one in kills if one["kind"] == kind]
        shares = [one["share"] for one in of_kind]
        same = sum(one["runs"] == 1 for one in of_kind)
        seconds = statistics.median(one["seconds"] for one in of_kind)
        good = sum(not one["faults"] for one in of_kind)
        span = f"{min(shares):.2f} to {max(shares):.2f}"
        lines.append(f"| {kind} | {len(of_kind)} | {span} | {good} | {same} | {seconds:.0f} |")
    wrong = [one for one in kills if one["faults"]]
    lines += ["", *(f"- **wrong**: {one['kind']} at {one['share']}: {'; '.join(one['faults'])}" for one in wrong)]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/tl-kills"))
    parser.add_argument("--results", type=Path, default=RESULTS / "retraining_kills.json")
    parser.add_argument("--render", action="store_true", help="only write the table of what is kept")
    arguments = parser.parse_args()
    if not arguments.render:
        shutil.rmtree(arguments.folder, ignore_errors=True)
        os.environ["XDG_CACHE_HOME"] = str(arguments.folder / "cache")
        first = made(arguments.folder / "first" / "shop", rows=120)
        finish(first)
        write_rows(first, 180, seed=0)
        undisturbed = copy(first, arguments.folder / "calm")
        seconds = finish(undisturbed)
        calm, draw, kills = left(undisturbed), random.Random(arguments.seed), []
        for number in range(arguments.kills):
            project = copy(first, arguments.folder / f"kill-{number}")
            share = draw.uniform(0.05, 1.0)
            kills.append(asdict(disturbed(project, calm, seconds, KINDS[number % len(KINDS)], share, draw)))
            print(json.dumps(kills[-1]), flush=True)
            facts = {"seed": arguments.seed, "calm_seconds": round(seconds, 1), "kills": kills}
            write_json(arguments.results, facts)
            if not kills[-1]["faults"]:
                shutil.rmtree(project.parent)
    kept = json.loads(arguments.results.read_text(encoding="utf-8"))
    arguments.results.with_suffix(".md").write_text(page(kept), encoding="utf-8")


def copy(project: Path, folder: Path) -> Path:
    """The project as it is, in a folder of its own."""
    shutil.copytree(project.parent, folder, symlinks=True)
    return folder / project.name


if __name__ == "__main__":
    main()
