"""A recorded run made anew: its commit in a clean folder, its data by DVC, every step, and what came out otherwise."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from tl_core.errors import UserError
from tl_core.workspace import STEPS
from tl_flows.engine import Stages
from tl_flows.git import commit_of
from tl_flows.params import edit_params
from tl_flows.prefect_env import LOGGER, STAGE_LOGGER
from tl_flows.project import PARAMS, project_workspace
from tl_flows.reproduction.code import Code, code_of
from tl_flows.reproduction.comparison import Comparison
from tl_flows.reproduction.lock import lock_at
from tl_flows.reproduction.verdict import Reproduction, judge
from tl_flows.retraining.worktree import Worktree
from tl_flows.stage_process import NOTE, run_dvc
from tl_flows.versioning import changes

log = logging.getLogger(LOGGER)
stage_log = logging.getLogger(STAGE_LOGGER)

FOLDER = Path(".tl", "reproduce")
STORE = ".tl/store"  # of the clean folder itself: empty, so that features are computed anew


@dataclass(frozen=True)
class Asked:
    """name: of the run, as the user calls it; revision: its commit, as git knows it.

    tolerance: of metrics and of the share of rows that are predicted otherwise; keep: folder that the run stays in,
    None: it is taken away; stored_features: take features from the project's store where it has them; step_hours: a
    step that takes longer is ended.
    """

    name: str
    revision: str
    tolerance: float = 0.01
    keep: Path | None = None
    stored_features: bool = False
    step_hours: float = 24.0


def reproduce(main: Path, asked: Asked) -> Reproduction:
    """Run all steps of a commit anew and compare with what the commit recorded. The project itself stays untouched.

    main: the project in the main worktree. Raises UserError where the commit holds no run, its data can't be had, or a
    step refuses its input; StageError where a step fails otherwise.
    """
    started = time.perf_counter()
    commit = commit_of(main, asked.revision)
    then = lock_at(main, commit)
    with _place(main, asked.keep) as folder:
        tree = Worktree.at(main, commit, folder=folder)
        try:
            code = code_of(main, tree)
            for line in code.differs:
                log.warning("warning   %s", line)
            touched = _prepare(tree, asked)
            _run(tree, code, asked)
            with Comparison(main, commit, tree.project, then, code.inputs, touched) as compared:
                differences = compared.differences()
                close = compared.closeness(asked.tolerance)
                outcome, sentence = judge(asked.name, differences, compared.comparable, close, asked.tolerance)
                shown = close if outcome != "identical" and compared.comparable else None
        finally:
            if asked.keep is None:
                tree.remove(main)
    return Reproduction(
        asked.name, commit, outcome, sentence, tuple(differences), code.differs, shown,
        round(time.perf_counter() - started, 1), str(folder) if asked.keep is not None else None,
    )  # fmt: skip


def _prepare(tree: Worktree, asked: Asked) -> str:
    """Fetch the data and set an empty store; what changed in the data since the run saw them, in words."""
    edits = {} if asked.stored_features else {"store.path": STORE}
    config = edit_params(tree.project / PARAMS, edits)  # no step depends on where features lie
    data = tree.project / Path(config.data.path).expanduser()
    Stages(project_workspace(tree.project, config), data, asked.step_hours * 3600).record_data()
    found = changes(tree.project, data, STEPS[0])
    return found.describe() if found is not None else ""


def _run(tree: Worktree, code: Code, asked: Asked) -> None:
    variables = {}
    if code.folders:
        paths = [*map(str, code.folders), os.environ.get("PYTHONPATH", "")]
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    for number, step in enumerate(STEPS, 1):
        log.info("%-8s  step %d of %d", step, number, len(STEPS))
        command = ["repro", "--force", "--no-commit", "--no-run-cache", "--single-item", step]
        try:
            run_dvc(tree.project, command, _tell, asked.step_hours * 3600, variables)
        except UserError as error:
            raise UserError(f"{asked.name} can't be reproduced here: {step} refused its input\n{error}") from error


def _tell(line: str) -> None:
    if line.startswith(NOTE):
        log.info("%s", line.removeprefix(NOTE))
    else:
        stage_log.info("%s", line)


@contextlib.contextmanager
def _place(main: Path, keep: Path | None) -> Iterator[Path]:
    """The folder to work in, ours alone. Raises UserError where it can't be had."""
    if keep is not None:
        folder = keep.expanduser().resolve()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{keep} exists already and is not empty; name another folder for --keep")
        yield folder
        return
    lock = FileLock(main / FOLDER / "lock")
    try:
        (main / FOLDER).mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"another reproduction of {main} runs; wait until it ends, or name a folder of its own with --keep"
        ) from error
    except OSError as error:
        raise UserError(
            f"can't write to {main / FOLDER}: {error.strerror}; free some space or mend its rights"
        ) from error
    try:
        Worktree(main / FOLDER / "tree", main).remove(main)  # of one that was killed
        yield main / FOLDER / "tree"
    finally:
        lock.release()
