"""Where a retrain's code, parameters and data come from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tl_core.config import load_config
from tl_core.errors import UserError
from tl_flows import versioning
from tl_flows.git import GitError, commit_of, git
from tl_flows.project import PARAMS
from tl_flows.registry_state import Version
from tl_flows.retraining.attempt import FOLDER
from tl_flows.retraining.incoming import Copied, mirror
from tl_flows.retraining.worktree import Worktree
from tl_flows.stage_process import StageError


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


def bring_data(main: Path, asked: Asked, tree: Worktree, latest: Version | None) -> Copied:
    """Bring the data into the worktree: from the watched folder or the main worktree; else DVC does, later.

    latest: the version registered last. Raises UserError where the data lie outside of the repository and others are
    asked for.
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
    if asked.data is not None:
        source = Path(asked.data).expanduser().resolve()
    elif asked.revision is None:
        source = main / os.path.relpath(place, project)
    else:
        return nothing
    if asked.data is None and not source.exists():
        return nothing
    tracked = versioning.tracked(project, data)
    if latest is not None and tracked is not None and not tree.kept:
        # what was recorded last time needs no recording again
        tree.take(latest.commit, [tracked.file])
    return mirror(source, data if source.is_file() else place, project / FOLDER / "incoming")
