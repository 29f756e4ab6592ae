"""Where a run works: in a DVC project, or outside one with a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
import yaml
from filelock import FileLock, Timeout

from tl_core.config import RunConfig
from tl_core.errors import UserError
from tl_core.workspace import STEPS, Workspace

PARAMS = "params.yaml"
PIPELINE = "dvc.yaml"
LITTLE_BYTES = 8_000_000  # most of what a new database of Prefect's and its journal take


def find_project(start: Path) -> Path | None:
    """The nearest folder, from `start` upwards, that is a project; None where there is none.

    It may be any folder of its DVC repository: a repository can hold several projects.
    """
    start = start.resolve()
    repository = find_repository(start)
    if repository is None:
        return None
    folders = (folder for folder in (start, *start.parents) if folder.is_relative_to(repository))
    return next((folder for folder in folders if _has_steps(folder / PIPELINE)), None)


def find_repository(start: Path) -> Path | None:
    """The root of the DVC repository that `start` lies in, or None outside of any in the same git repository."""
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / ".dvc").is_dir():
            return folder
        if (folder / ".git").exists():
            return None
    return None


def require_project(start: Path) -> Path:
    """The project that a folder lies in. Raises UserError, with the two ways to go on, where there is none."""
    root = find_project(start)
    if root is None:
        raise UserError(
            f"{start} lies in no tl project (no {PIPELINE} with tl's steps in a DVC repository); "
            "give the data with --data PATH, or make a project with `tl init`"
        )
    if not (root / PARAMS).is_file():
        raise UserError(f"the project {root} has no {PARAMS}; `tl init` writes one")
    return root


def named_projects(folders: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The projects that a user names, each once. Raises UserError that lists every folder that is none.

    A folder inside a project does not do: it may be meant as data.
    """
    roots, faults = [], []
    for folder in folders:
        root = Path(folder).expanduser().resolve()
        if not root.is_dir():
            faults.append(f"no such folder: {folder}; give the folder of a project, one with a {PIPELINE}")
        elif find_project(root) != root:
            faults.append(
                f"{folder} is no tl project (no {PIPELINE} with tl's steps in a DVC repository); "
                f"to learn from a folder of samples: tl run --data {folder}"
            )
        elif not (root / PARAMS).is_file():
            faults.append(f"the project {folder} has no {PARAMS}; `tl init` writes one")
        else:
            roots.append(root)
    if faults:
        raise UserError("\n".join(faults))
    return list(dict.fromkeys(roots))


def _has_steps(pipeline: Path) -> bool:
    """Whether a pipeline is one of tl's; an unreadable one counts, so that DVC says what is wrong with it."""
    try:
        text = pipeline.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError):
        return True
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return True
    stages = content.get("stages") if isinstance(content, dict) else None
    return isinstance(stages, dict) and STEPS[0] in stages


def cache_folder() -> Path:
    """The user's cache folder for tl. Raises UserError where it can't be written."""
    folder = Path(platformdirs.user_cache_dir("tl"))
    return writable(folder, "the cache folder", "set XDG_CACHE_HOME to a folder that can be written")


def project_workspace(root: Path, config: RunConfig) -> Workspace:
    """The workspace of a DVC project: outputs in the project, features in the main worktree's `.tl`.

    A linked git worktree (a scheduled retrain) so finds the features that the main one has computed.
    """
    shared = main_worktree(root) / ".tl"
    store = shared / "store" if config.store.path is None else _resolve(root, config.store.path)
    return Workspace(root=root, store=store, cache=shared / "cache")


def outside_workspace(out: Path, config: RunConfig) -> Workspace:
    """The workspace of a run without a project: outputs in `out`, features in the user's cache folder."""
    out = out.expanduser().resolve()
    cache = cache_folder()
    store = cache / "store" if config.store.path is None else _resolve(Path.cwd(), config.store.path)
    return Workspace(root=out, store=store, cache=cache / "checks")


def main_worktree(root: Path) -> Path:
    """The same folder in the repository's main worktree; `root` itself where git knows of no other."""
    command = ["git", "rev-parse", "--path-format=absolute", "--git-common-dir", "--show-prefix"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return root
    common, prefix = [*done.stdout.splitlines(), ""][:2]
    # a submodule's or bare repository's common folder lies in no worktree
    return Path(common).parent / prefix if Path(common).name == ".git" else root


def writable(folder: Path, what: str, remedy: str) -> Path:
    """Make the folder and try to write in it. Raises UserError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"can't write to {what} {folder}: {error.strerror or error}; {remedy}") from error
    return folder


def full_disk(*folders: Path) -> str | None:
    """That a folder's disk is as good as full, in words; None where all have room."""
    for folder in folders:
        free = shutil.disk_usage(folder).free
        if free < LITTLE_BYTES:
            return f"the disk of {folder} is full ({free / 1e6:.1f} MB free)"
    return None


@contextmanager
def sole_run(out: Path) -> Iterator[None]:
    """Hold the output folder for one run. Raises UserError, naming the holder, where another run has it."""
    state = writable(out, "the output folder", "choose another with --out FOLDER") / ".tl"
    state.mkdir(exist_ok=True)
    holder = state / "holder.json"
    lock = FileLock(state / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"another run works in {out}{_named(holder)}; wait until it ends, or choose another --out"
        ) from error
    try:
        holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}), encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _named(holder: Path) -> str:
    try:
        facts = json.loads(holder.read_text(encoding="utf-8"))
        return f" (process {facts['pid']} on {facts['host']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # the other run has only just taken the lock


def _resolve(base: Path, path: str) -> Path:
    return (base / Path(path).expanduser()).resolve()
