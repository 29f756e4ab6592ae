"""A month of nights: data come, go, are relabelled and damaged, workers die, disks fill up; does each night end right?

    python -m benchmarks.retraining.month [--data FOLDER] [--folder FOLDER] [--nights 30] [--render]

A project over photos of hand signs (sign_digits, a real pretrained MobileNet, a probe) is retrained once a night by
`tl retrain`, as a scheduler would call it. What happens to the data before each night, and which outcome is right, is
written down here in advance; `promoted or refused` stands where only the gate can tell, and the champion has to follow
its verdict. Counted besides: features computed in all nights, against the distinct samples that were ever there.
FOLDER is made anew; the night with a full disk needs a folder on a small file system of its own, which root gets as a
tmpfs. Results: benchmarks/results/retraining_month.{json,md}. About 20 minutes on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.selection.setting import ROOT
from tl_core.workspace import write_json

RESULTS = ROOT / "benchmarks" / "results"
BACKBONE = "mobilenet_v1_050_160_imagenet"
DATASET = "sign_digits"
SETTINGS = {
    "tune.strategy": "probe",
    "tune.curve": False,
    "evaluate.robustness": 0,
    "evaluate.explain": 0,
    "evaluate.diagnostics": False,
}
FIRST, NEW = "12346789", "05"  # the new ones are like no other, so that knowing them is worth it beyond doubt
EITHER = ("promoted", "refused")
DISK_MB = 600


class Month:
    """The project, the photos that are not in it yet, and what happened so far."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.root = folder / "signs"
        self.sources = data / "datasets" / DATASET
        self.photos = self.root / "data"
        draw = random.Random(0)
        self.waiting: dict[str, list[Path]] = {}
        for place in sorted(self.sources.glob("t*/*/*")):
            self.waiting.setdefault(place.parent.name, []).append(place)
        for of_class in self.waiting.values():
            draw.shuffle(of_class)
        self.seen: set[str] = set()
        self.kept: dict[str, bytes] = {}
        self.began = 0.0
        self.champion: str | None = None

    def add(self, classes: str, count: int, label: Callable[[str], str] = lambda name: name) -> list[Path]:
        """Further photos of each class, under the label's folder."""
        added = []
        for name in classes:
            for source in [self.waiting[name].pop() for _ in range(count)]:
                target = self.photos / label(name) / f"{name}_{source.name}"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
                added.append(target)
        return added

    def files(self) -> list[Path]:
        return sorted(path for path in self.photos.rglob("*") if path.is_file())

    def count_samples(self) -> None:
        """Those of tonight that are photos; a broken file has no features."""
        whole = [path for path in self.files() if not path.name.startswith(("broken_", "notes"))]
        self.seen |= {hashlib.md5(path.read_bytes()).hexdigest() for path in whole}


def run(month: Month, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """A retrain to its end: exit code, outcome, what it told."""
    done = subprocess.run(command(*arguments), cwd=month.root, capture_output=True, text=True)
    told = json.loads(done.stdout) if done.stdout.strip().startswith("{") else {"state": "failed"}
    return done.returncode, told, done.stderr


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tl_flows", "retrain", "--json", *arguments]


@dataclass(frozen=True)
class Night:
    """what: happens before and during the night; right: the states that are right; check: what else must hold."""

    what: str
    right: tuple[str, ...]
    do: Callable[[Month], tuple[int, dict[str, Any], str]]
    check: Callable[[Month, dict[str, Any], str], bool] = lambda month, told, log: True


def plain(*arguments: str) -> Callable[[Month], tuple[int, dict[str, Any], str]]:
    return lambda month: run(month, *arguments)


def after(change: Callable[[Month], object], *arguments: str) -> Callable[[Month], tuple[int, dict[str, Any], str]]:
    """A night after a change of the data."""

    def night(month: Month) -> tuple[int, dict[str, Any], str]:
        change(month)
        return run(month, *arguments)

    return night


def touch(month: Month) -> None:
    for path in month.files():
        os.utime(path)


def damage(count: int) -> Callable[[Month], None]:
    """Photos that were cut off while they were sent."""

    def change(month: Month) -> None:
        for i in range(count):
            whole = month.files()[0].read_bytes()
            (month.photos / FIRST[0] / f"broken_{i}.jpg").write_bytes(whole[: 200 + i])

    return change


def mend(month: Month) -> None:
    for path in month.photos.rglob("broken_*"):
        path.unlink()


def delete(month: Month) -> None:
    for path in month.files()[::17]:
        path.unlink()


def relabel(month: Month) -> None:
    """Photos that somebody had put into the wrong folder are put right, under the names of their class."""
    moved = [path for path in month.files() if path.name.partition("_")[0] != path.parent.name]
    for path in moved:
        shutil.move(path, month.photos / path.name.partition("_")[0] / path.name)


def next_of(sign: str) -> str:
    """Another of the first signs."""
    return FIRST[(FIRST.index(sign) + 1) % len(FIRST)]


def misplace(month: Month) -> None:
    for path in month.files()[::23]:
        shutil.move(path, month.photos / next_of(path.parent.name) / path.name)


def bad_batch(month: Month) -> None:
    """A delivery whose labels are those of the next class."""
    month.kept = {str(path): path.read_bytes() for path in month.add(FIRST, 8, next_of)}


def withdraw(month: Month) -> None:
    for name in month.kept:
        Path(name).unlink()
        label, _, source = Path(name).name.partition("_")
        month.waiting[label].append(next(month.sources.glob(f"t*/{label}/{source}")))


def killed(month: Month) -> tuple[int, dict[str, Any], str]:
    """The worker dies twice, early and late; the scheduler starts again."""
    month.add(FIRST, 2)
    for seconds in (6.0, 16.0):
        worker = subprocess.Popen(
            command(), cwd=month.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    return run(month)


def full_disk(month: Month) -> tuple[int, dict[str, Any], str]:
    month.add(FIRST, 2)
    free = shutil.disk_usage(month.root).free
    ballast = month.root.parent / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - 300_000))
    try:
        return run(month)
    finally:
        ballast.unlink()


def two_at_once(month: Month) -> tuple[int, dict[str, Any], str]:
    """A second retrain starts while the first one runs: it is refused, and the first one ends as if alone."""
    month.add(FIRST, 2)
    first = subprocess.Popen(command(), cwd=month.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    attempt = month.root / ".tl" / "retrain" / "attempt.json"
    end = time.monotonic() + 120
    while json.loads(attempt.read_text())["state"] and time.monotonic() < end:
        time.sleep(0.1)
    code, _, log = run(month)
    told, _ = first.communicate()
    refused = code == 2 and f"process {first.pid}" in log
    return first.returncode, json.loads(told), "second refused" if refused else log


def rolled_back(month: Month) -> tuple[int, dict[str, Any], str]:
    """Somebody goes back to the champion before this one; a night without new data leaves it at that."""
    tl(month, "registry", "rollback", "--why", "a complaint")
    month.champion = champion_of(month)
    return run(month)


def tl(month: Month, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tl_flows", *arguments], cwd=month.root, capture_output=True, text=True, check=True
    )
    return done.stdout


def champion_of(month: Month) -> str | None:
    listed = json.loads(tl(month, "registry", "list", "--json"))
    return next((version["name"] for version in listed if "champion" in version["aliases"]), None)


def quarantined(count: int) -> Callable[[Month, dict[str, Any], str], bool]:
    return lambda month, told, log: told["quarantined"] == count


def names(text: str) -> Callable[[Month, dict[str, Any], str], bool]:
    return lambda month, told, log: text in log + told.get("reason", "")


def new_classes(month: Month, told: dict[str, Any], log: str) -> bool:
    """The new model names classes that the champion can't."""
    return any(rule["name"] == "known" for rule in told["decision"]["rules"])


NIGHTS = (
    Night("the first photos of eight signs", ("promoted",), after(lambda m: m.add(FIRST, 8))),
    Night("nothing", ("nothing new",), plain()),
    Night("every file touched", ("nothing new",), after(touch)),
    Night("8 more photos of each sign", EITHER, after(lambda m: m.add(FIRST, 8))),
    Night(
        "one photo cut off in transfer", EITHER, after(lambda m: (m.add(FIRST[:4], 1), damage(1)(m))), quarantined(1)
    ),
    Night("the broken photo taken out", EITHER, after(mend), quarantined(0)),
    Night("one photo in 23 put into a wrong folder", EITHER, after(misplace)),
    Night("these put right", EITHER, after(relabel)),
    Night("two new signs, 30 photos each", ("promoted",), after(lambda m: m.add(NEW, 30)), new_classes),
    Night("nothing", ("nothing new",), plain()),
    Night("64 new photos with the labels of the next sign", ("refused",), after(bad_batch)),
    Night("these withdrawn", ("refused",), after(withdraw), names("the same model")),
    Night("2 more of each sign; the worker is killed twice", EITHER, killed),
    Night("nothing", ("nothing new",), plain()),
    Night("2 more of each sign; the disk is full", ("failed",), full_disk, names("full")),
    Night("the disk has room again", EITHER, plain()),
    Night("2 more of each sign; two retrains at once", EITHER, two_at_once, names("second refused")),
    Night("a third of the photos broken", ("failed",), after(damage(120)), names("max_bad")),
    Night("the broken ones taken out", ("nothing new",), after(mend)),
    Night("one photo in 17 deleted", EITHER, after(delete)),
    Night("code and data of a remote that is away", ("failed",), plain("--revision", "away/main"), names("away")),
    Night("nothing", ("nothing new",), plain()),
    Night("the data folder is gone", ("failed",), lambda m: without_data(m), names("no data in")),
    Night("it is back", ("nothing new",), plain()),
    Night("rolled back by hand", ("nothing new",), rolled_back),
    Night("4 more photos of each sign", EITHER, after(lambda m: m.add(FIRST + NEW, 4))),
    Night("a file that is no photo", EITHER, after(lambda m: (m.photos / "1" / "notes.jpg").write_text("see mail"))),
    Night("that file taken out", EITHER, after(lambda m: (m.photos / "1" / "notes.jpg").unlink())),
    Night("2 more of each sign", EITHER, after(lambda m: m.add(FIRST + NEW, 2))),
    Night("nothing", ("nothing new",), plain()),
)


def without_data(month: Month) -> tuple[int, dict[str, Any], str]:
    away = month.root / "data.away"
    month.photos.rename(away)
    try:
        return run(month, "--data", "data")
    finally:
        away.rename(month.photos)


def made(folder: Path, data: Path) -> Month:
    """A project with a remote that does not answer, over no photos yet."""
    from tl_flows.git import git
    from tl_flows.params import edit_params
    from tl_flows.scaffold import init_project

    month = Month(folder, data)
    month.root.mkdir(parents=True)
    git(month.root, "init", "--quiet", "--initial-branch=main")
    git(month.root, "remote", "add", "away", str(folder / "nowhere.git"))
    month.add(FIRST[0], 1)
    list(init_project(month.root, month.photos, git=True))
    edit_params(month.root / "params.yaml", {**SETTINGS, "select.backbones": [str(data / "weights" / BACKBONE)]})
    git(month.root, "add", "--all")
    git(month.root, "-c", "user.name=month", "-c", "user.email=month@localhost", "commit", "--quiet", "-m", "Start")
    return month


def lived(month: Month, number: int, night: Night) -> dict[str, Any]:
    """One night, and whether it ended as it should."""
    started, month.began = time.perf_counter(), time.time()
    tip = head(month)
    code, told, log = night.do(month)
    seconds = time.perf_counter() - started
    month.count_samples()
    rows, audited = work(month)
    before, month.champion = month.champion, champion_of(month)
    follows = month.champion == (told.get("version") if told["state"] == "promoted" else before)
    fits = code == {"promoted": 0, "nothing new": 0, "refused": 3}.get(told["state"], 2 if code == 2 else 1)
    right = told["state"] in night.right and follows and fits and night.check(month, told, log) and head(month) == tip
    return {
        "night": number,
        "what": night.what,
        "expected": " or ".join(night.right),
        "state": told["state"],
        "version": told.get("version"),
        "champion": month.champion,
        "reason": told.get("reason") or (log.strip().splitlines() or [""])[-1],
        "right": right,
        "rows": rows,
        "audited": audited,
        "seconds": round(seconds, 1),
    }


def head(month: Month) -> str:
    """What a retrain must leave alone: the branch and the files that git tracks."""
    from tl_flows.git import git

    return git(month.root, "rev-parse", "HEAD") + git(month.root, "status", "--porcelain", "--untracked-files=no")


def work(month: Month) -> tuple[int, int]:
    """Rows that the feature store holds of the network, and rows of it that were computed again to prove stored ones.

    The second: of this night, where its extraction ran.
    """
    from tl_core.store import FeatureStore

    rows = max((space.rows for space in FeatureStore(month.root / ".tl" / "store").info()), default=0)
    told = month.root / ".tl" / "retrain" / "tree" / ".tl" / "run" / "extract.json"
    if not told.is_file() or told.stat().st_mtime < month.began:
        return rows, 0
    return rows, int(json.loads(told.read_text())["audited"])


def page(nights: list[dict[str, Any]], samples: int) -> str:
    """The nights as a table."""
    right = sum(night["right"] for night in nights)
    done = nights[-1]["rows"] + sum(night["audited"] for night in nights)
    lines = [
        "# A month of nights",
        "",
        f"{right} of {len(nights)} nights ended as they should (`python -m benchmarks.retraining.month`).",
        f"Features of the network computed in all: {done:,}, of which {done - nights[-1]['rows']:,} to prove stored "
        f"ones; {samples:,} distinct photos were ever there: {done / samples:.3f} times the work of each once "
        "(goal: at most 1.1).",
        "",
        "| night | what happens | right is | state | serves | seconds | |",
        "|---|---|---|---|---|---|---|",
    ]
    for n in nights:
        told = "" if n["right"] else f"**wrong**: {n['reason'][:200]}"
        cells = (n["night"], n["what"], n["expected"], n["state"], n["champion"] or "", f"{n['seconds']:.0f}", told)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("TL_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/tl-month"))
    parser.add_argument("--nights", type=int, default=len(NIGHTS), help="only the first so many")
    parser.add_argument("--results", type=Path, default=RESULTS / "retraining_month.json")
    parser.add_argument("--render", action="store_true", help="only write the table of what is kept")
    arguments = parser.parse_args()
    if not arguments.render:
        os.environ["XDG_CACHE_HOME"] = str(arguments.folder / "cache")
        with small_disk(arguments.folder):
            month = made(arguments.folder, arguments.data.resolve())
            nights = []
            for number, night in enumerate(NIGHTS[: arguments.nights], 1):
                nights.append(lived(month, number, night))
                print(json.dumps(nights[-1], ensure_ascii=False), flush=True)
            write_json(arguments.results, {"samples": len(month.seen), "nights": nights})
    kept = json.loads(arguments.results.read_text())
    arguments.results.with_suffix(".md").write_text(page(kept["nights"], kept["samples"]))


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """An empty folder that is a file system of its own, so that a full disk fills nothing else."""
    unmount = ["umount", "--lazy", str(folder)]
    while folder.is_mount():  # of a month that was killed
        subprocess.run(unmount, check=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(unmount, check=True)


if __name__ == "__main__":
    main()
