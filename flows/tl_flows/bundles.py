"""Models of earlier commits as folders by content: out of DVC's cache or remote, never from the workspace.

`dvc repro` deletes a stage's outputs before it runs: what serves must not lie there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import yaml
from filelock import FileLock

from tl_core.errors import UserError
from tl_core.workspace import write_bytes
from tl_flows.git import GitError, git
from tl_flows.project import main_worktree, writable

OUTPUT = "artifacts/tune"
MODEL = "model"
LISTING = "files.json"  # DVC's own list of the output's files, whose md5 is the folder's name
FOLDER = Path(".tl", "bundles")
KEPT_DAYS = 30  # since its last use; nobody takes so long to read a model


def digest_at(root: Path, commit: str) -> str:
    """DVC's md5 of the project's tuned model as a commit's dvc.lock records it.

    Raises UserError where the commit has no dvc.lock of the project with one.
    """
    try:
        lock = yaml.safe_load(git(root, "show", f"{commit}:./dvc.lock"))
        outputs = {out["path"]: str(out["md5"]) for out in lock["stages"]["tune"]["outs"]}
        digest = outputs[OUTPUT]
    except (GitError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(
            f"commit {commit[:12]} holds no tuned model of the project {root}: its dvc.lock has no {OUTPUT}; "
            "`tl run`, commit dvc.lock, and name that commit"
        ) from error
    return digest.removesuffix(".dir")


def bundle_at(root: Path, commit: str) -> Path:
    """The folder of the model that a commit's dvc.lock records, for reading only; the same bytes in the same folder.

    Made from DVC's cache or remote where it is not whole yet; each file is verified, every time. Raises UserError where
    neither has it, or its bytes are not those that dvc.lock names.
    """
    digest = digest_at(root, commit)
    folder = main_worktree(root) / FOLDER / digest
    _mark_used(folder)
    if _fault(folder, digest) is None:
        return folder / MODEL
    writable(folder.parent, "the folder of fetched models", "free some space, or mend its rights")
    with FileLock(folder.parent / "lock"):  # a second process waits, and finds it whole
        if _fault(folder, digest) is not None:
            _fetch(root, commit, digest, folder)
            _clean(main_worktree(root), folder.parent)
    return folder / MODEL


def _fetch(root: Path, commit: str, digest: str, folder: Path) -> None:
    from tl_flows.versioning import folder_at

    new = folder.parent / "new"  # of whoever holds the lock; what a killed process left goes
    shutil.rmtree(new, ignore_errors=True)
    try:
        write_bytes(new / LISTING, folder_at(root, commit, OUTPUT, new))
        fault = _fault(new, digest)
        if fault is not None:
            raise UserError(
                f"the model of commit {commit[:12]} is damaged in DVC's cache or remote: {fault}; delete it there and "
                "`dvc fetch`, or check the commit out and `tl run`"
            )
        for file in new.rglob("*"):
            if file.is_file():
                file.chmod(0o444)
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _mark_used(folder: Path) -> None:
    """The time of its list of files says when a model was used last."""
    with contextlib.suppress(OSError):  # not there yet, or in a project that can only be read
        os.utime(folder / LISTING)


def _clean(root: Path, bundles: Path) -> None:
    """Delete the models that nobody has used for long and that have no alias. The caller holds the lock."""
    from tl_flows.model_registry import ModelRegistry
    from tl_flows.registry_state import ALIASES

    going = bundles / "going"
    shutil.rmtree(going, ignore_errors=True)  # what a killed process left
    old = [folder for folder in bundles.iterdir() if _unused(folder)]
    if not old:
        return
    try:
        state = ModelRegistry.open(root).state()
        kept = {digest_at(root, found.commit) for alias in ALIASES if (found := state.find(alias)) is not None}
    except UserError:  # what can't be told apart stays
        return
    for folder in old:
        if folder.name not in kept:
            folder.rename(going)  # a reader finds it whole or not at all
            if _unused(going):
                shutil.rmtree(going, ignore_errors=True)
            else:  # someone has come for it just now
                going.rename(folder)


def _unused(folder: Path) -> bool:
    try:
        return (folder / LISTING).stat().st_mtime < time.time() - KEPT_DAYS * 86400
    except OSError:
        return False


def _fault(folder: Path, digest: str) -> str | None:
    """What is wrong with a fetched folder; None where every file is what DVC's list says, and the list what it was."""
    try:
        listing = (folder / LISTING).read_bytes()
        if hashlib.md5(listing).hexdigest() != digest:
            return f"its list of files has another md5 than {digest}"
        for entry in json.loads(listing):
            with (folder / entry["relpath"]).open("rb") as stream:
                found = hashlib.file_digest(stream, "md5").hexdigest()
            if found != entry["md5"]:
                return f"{entry['relpath']} has md5 {found} instead of {entry['md5']}"
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return None
