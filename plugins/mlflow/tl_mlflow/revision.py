"""Which commit a project's folder is at, and where the project lies, as git says."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

SECONDS = 5.0
# what a run itself writes tells nothing of the code
WRITTEN = (":(top,exclude,glob)**/dvc.lock", ":(top,exclude,glob)**/artifacts/**")


@dataclass(frozen=True)
class Revision:
    """A commit. changed: whether tracked files differ from it."""

    commit: str
    changed: bool

    def __str__(self) -> str:
        return f"{self.commit} with uncommitted changes" if self.changed else self.commit


def code_revision(folder: Path) -> Revision | None:
    """The commit that a folder is at; None outside of git, or where it has no commit."""
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ":/", *WRITTEN)
    return Revision(commit, changed=changes != "")


def project_folder(folder: Path) -> Path:
    """A project's folder; where a retrain works in a worktree of its own, that in the main worktree."""
    told = _git(folder, "rev-parse", "--path-format=absolute", "--git-common-dir", "--show-prefix")
    common, prefix = [*(told or "").split("\n"), ""][:2]
    main = Path(common).parent / prefix
    return main if Path(common).name == ".git" and main.is_dir() else folder


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, None where it fails or takes too long."""
    # a lock would stand in the way of a git command that the user starts meanwhile
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
