"""A git worktree of its own for retrains and reproductions: the user's files and the serving model stay untouched."""

from __future__ import annotations

import configparser
import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

from tl_core.errors import UserError
from tl_flows.git import GitError, git
from tl_flows.project import find_repository

FOLDER = Path(".tl", "retrain", "tree")
AUTHOR = ("-c", "user.name=tl", "-c", "user.email=tl@localhost")


@dataclass(frozen=True)
class Worktree:
    """A linked worktree. root: of the repository's files; project: the project's folder in it.

    kept: git's files are as an ended retrain left them. It stays from one retrain to the next, so that only what
    changed is copied, hashed and computed; whoever uses it holds the project's retrain lock.
    """

    root: Path
    project: Path
    kept: bool = False

    @classmethod
    def at(cls, main: Path, commit: str, *, keep: bool = False, folder: Path | None = None) -> Worktree:
        """The worktree of the project `main`, with git's files as they are at `commit` and all others as they were.

        folder: where it lies, that of the retrains where not given. keep: leave git's files as an ended retrain of the
        same commit left them. What a killed run left otherwise (a lock, half a checkout, a missing folder) is mended.
        DVC's cache is that of the main worktree. Raises UserError where git refuses.
        """
        try:
            top = Path(git(main, "rev-parse", "--show-toplevel"))
            root = folder or main / FOLDER
            tree = cls(root, root / main.resolve().relative_to(top.resolve()))
            if not tree._linked(main):
                shutil.rmtree(tree.root, ignore_errors=True)
                tree.root.parent.mkdir(parents=True, exist_ok=True)
                git(main, "worktree", "prune")
                git(main, "worktree", "add", "--force", "--detach", "--no-checkout", str(tree.root), commit)
                keep = False
            tree = dataclasses.replace(tree, kept=keep and tree._stand_on(commit))
            if not tree.kept:
                tree.reset(commit)
        except (GitError, OSError) as error:
            raise UserError(f"no worktree in {folder or main / FOLDER}: {error}") from error
        tree._share_cache(main)
        return tree

    def reset(self, commit: str) -> None:
        """Git's files as they are at a commit; what git ignores (data, step outputs, features) stays."""
        # a killed git leaves its lock; no one else works here
        Path(self.root, git(self.root, "rev-parse", "--git-path", "index.lock")).unlink(missing_ok=True)
        git(self.root, "checkout", "--quiet", "--force", "--detach", commit)
        git(self.root, "clean", "--quiet", "--force", "-d")

    def take(self, commit: str, paths: list[str]) -> None:
        """Files of the project as they are at another commit; those that it doesn't have are left as they are."""
        known = git(self.project, "ls-tree", "-r", "--name-only", commit, "--", *paths).splitlines()
        if known:
            git(self.project, "checkout", "--quiet", commit, "--", *known)

    def commit(self, message: str) -> str:
        """A commit of everything that git tracks here, on no branch; its id."""
        git(self.root, "add", "--all")
        git(self.root, *AUTHOR, "commit", "--quiet", "--no-verify", "--allow-empty", "--message", message)
        return git(self.root, "rev-parse", "HEAD")

    def remove(self, main: Path) -> None:
        """Take the worktree away with all that lies in it; also one that is half made."""
        shutil.rmtree(self.root, ignore_errors=True)
        git(main, "worktree", "prune")

    def _stand_on(self, commit: str) -> bool:
        """Whether the files here are work on a commit; one that has been committed already is taken back."""
        head, *parents = git(self.root, "rev-list", "--parents", "--max-count=1", "HEAD").split()
        if head != commit and parents == [commit]:
            git(self.root, "reset", "--quiet", "--soft", commit)
            return True
        return head == commit

    def _linked(self, main: Path) -> bool:
        """Whether the folder is a worktree of the main one's repository: not in a project that was copied."""
        try:
            told = git(self.root, "rev-parse", "--path-format=absolute", "--show-toplevel", "--git-common-dir")
            common = git(main, "rev-parse", "--path-format=absolute", "--git-common-dir")
        except GitError:
            return False
        top, shared = told.splitlines()
        return Path(top).resolve() == self.root.resolve() and Path(shared).resolve() == Path(common).resolve()

    def _share_cache(self, main: Path) -> None:
        """Let DVC here use the cache, and what else is set on this machine alone, of the main worktree."""
        repository = find_repository(main)
        if repository is None:
            return
        inside = find_repository(self.project)
        if inside is None or inside.resolve() == repository.resolve():
            commit = git(self.root, "rev-parse", "HEAD")[:12]
            raise UserError(
                f"the DVC repository of {main} (.dvc/) is not part of commit {commit}; commit it: "
                "git add .dvc dvc.yaml params.yaml"
            )
        settings = configparser.ConfigParser(interpolation=None)
        local = repository / ".dvc" / "config.local"
        settings.read([repository / ".dvc" / "config", local], encoding="utf-8")
        cache = Path(settings.get("cache", "dir", fallback="cache"))  # relative to the file that says so
        kept = configparser.ConfigParser(interpolation=None)
        kept.read(local, encoding="utf-8")
        if not kept.has_section("cache"):
            kept.add_section("cache")
        kept.set("cache", "dir", str((repository / ".dvc" / cache.expanduser()).resolve()))
        with (inside / ".dvc" / "config.local").open("w", encoding="utf-8") as file:
            kept.write(file)
