"""Git as a command, with faults told in one line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tl_core.errors import UserError


class GitError(Exception):
    """A git command that failed; its own words."""


def git(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """What a git command prints, without the last line's end. Raises GitError where it fails, UserError without git.

    environment: variables beside those of this process.
    """
    variables = {**os.environ, **(environment or {})}
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, env=variables)
    except FileNotFoundError as error:
        if not folder.is_dir():
            raise GitError(f"no such folder: {folder}") from error
        raise UserError("git is not installed, by which versions are told apart; install it first") from error
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines() or [f"exit code {done.returncode}"]
        raise GitError(f"git {arguments[0]}: {'; '.join(line.removeprefix('fatal: ') for line in words[-3:])}")
    return done.stdout.removesuffix("\n")


def commit_of(folder: Path, revision: str) -> str:
    """The commit that a revision names. Raises UserError where git knows none."""
    try:
        return git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except GitError as error:
        raise UserError(
            f"git knows no revision {revision!r} in {folder}; `git log` and `git tag` list what there is, "
            "`git fetch` gets what others have pushed"
        ) from error
