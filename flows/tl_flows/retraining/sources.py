"""Where a retrain's code, parameters and data come from."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from tl_core.config import load_config, validate
from tl_core.errors import UserError
from tl_flows import versioning
from tl_flows.git import GitError, commit_of, git
from tl_flows.prefect_env import STAGE_LOGGER
from tl_flows.project import PARAMS
from tl_flows.registry_state import Version
from tl_flows.retraining.attempt import FOLDER
from tl_flows.retraining.incoming import Copied, mirror
from tl_flows.retraining.worktree import Worktree
from tl_flows.stage_process import StageError, run_dvc

stage_log = logging.getLogger(STAGE_LOGGER)


@dataclass(frozen=True)
class Asked:
    """What a retrain starts from.

    data: folder or table whose content becomes the data; None: the project's own, as they lie in the main worktree.
    revision: whose code, parameters and (without `data`) data are used, `origin/main` is fetched first; None: the last
    commit. step_hours: a step that takes longer is ended.
    """

    data: str | None = None
    revision: str | None = None
    step_hours: float = 24.0


def base_commit(main: Path, asked: Asked) -> str:
    """The commit whose code and parameters are used; a remote's branch is fetched first.

    Raises UserError on a revision that git does not know, StageError where the remote can't be reached.
    """
    revision = asked.revision or "HEAD"
    remote, _, branch = revision.partition("/")
    try:
        if branch and remote in git(main, "remote").splitlines():
            git(main, "fetch", "--quiet", "--tags", remote)
    except GitError as error:
        raise StageError(f"the remote {remote} can't be reached: {error}", may_pass=True) from error
    return commit_of(main, revision)


def bring_data(main: Path, asked: Asked, tree: Worktree, base: str, latest: Version | None) -> Copied:
    """Bring the data into the worktree: from the folder asked for, the main worktree, or as the commit `base` has them.

    latest: the version registered last. Raises UserError where there are no data to bring, where those of the main
    worktree are an earlier version that a pull has left behind, and where others are asked for than those outside of
    the repository; StageError where DVC's remote has to be asked and can't be.
    """
    nothing = Copied((), (), ())
    project = tree.project
    data = project / Path(load_config(project / PARAMS).data.path).expanduser()
    place = versioning.data_place(project, data)
    if place is None:
        if asked.data is not None:
            raise UserError(
                f"the project's data ({data}) lie outside of its repository and are read where they are; leave "
                "--data out, or let data.path name a folder in the project"
            )
        return nothing
    tracked = versioning.tracked(project, data)
    if asked.data is not None:
        source = Path(asked.data).expanduser().resolve()
    elif asked.revision is not None:
        if tracked is not None:
            _restore(tree, data, base, tracked.file, asked.step_hours * 3600)
        return nothing
    else:
        source = Path(os.path.normpath(main / os.path.relpath(place, project)))
        if not source.exists():
            raise UserError(
                f"no data in {source}; put them back (`dvc pull` brings those that the commit records), name others "
                "with --data, or take those of a commit: --revision HEAD"
            )
        _refuse_left_behind(main, source)
    if latest is not None and tracked is not None and not tree.kept:
        # what was recorded last time needs no recording again
        tree.take(latest.commit, [tracked.file])
    return mirror(source, data if source.is_file() else place, project / FOLDER / "incoming")


def _refuse_left_behind(main: Path, source: Path) -> None:
    try:
        told = versioning.left_behind(main, source)
    except UserError as error:  # the user is at work on the main worktree's pipeline; a retrain takes that of a commit
        stage_log.warning("can't tell whether the data are those that the .dvc file records: %s", error)
        return
    if told:
        raise UserError(told)


def other_rules(main: Path, params: Path, latest: Version) -> bool:
    """Whether parameters have other rules for the gate than those that a version was judged by."""
    try:
        then = validate(yaml.safe_load(git(main, "show", f"{latest.commit}:./{PARAMS}")))
    except (GitError, UserError, yaml.YAMLError):  # of a tl that knew other parameters
        return True
    return then.gate != load_config(params).gate


def _restore(tree: Worktree, data: Path, base: str, file: str, deadline_s: float) -> None:
    """Make the data those that a commit's .dvc file records, whatever an earlier retrain has left in their place."""
    tree.take(base, [file])
    found = versioning.tracked(tree.project, data)
    if found is None or found.state == "recorded":
        return
    try:
        run_dvc(tree.project, found.restore, stage_log.info, deadline_s)
    except StageError as error:
        lacks = f"the data that {file} of commit {base[:12]} records can't be fetched: {error}"
        with versioning.repository(tree.project) as repo:
            remote = versioning.default_remote(repo)
        if remote is None:
            raise UserError(f"{lacks}; name the remote that has them: dvc remote add -d NAME URL") from error
        raise StageError(lacks, may_pass=True) from error
