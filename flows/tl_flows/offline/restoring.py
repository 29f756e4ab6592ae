"""Making a project of a bundle: every byte is verified before anything is used, and the folder appears whole."""

from __future__ import annotations

import configparser
import hashlib
import importlib.metadata
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_core.config import load_config
from tl_core.errors import UserError
from tl_core.progress import progress
from tl_core.workspace import write_text
from tl_flows.git import GitError, git
from tl_flows.offline.contents import DVC, FEATURES, HUB, MANIFEST, REPOSITORY, TREE, WEIGHTS, Contents
from tl_flows.offline.writing import BLOCK, room
from tl_flows.params import edit_params
from tl_flows.project import PARAMS, PIPELINE, find_repository

NAMED = 10  # faults told
_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Restored:
    """A project made of a bundle. hub: the hub's cache where weights were put into it; notes: in sentences."""

    project: Path
    contents: Contents
    hub: Path | None
    notes: tuple[str, ...]


def restore(bundle: Path, folder: Path) -> Restored:
    """Make the project of a bundle (folder or tar) in a folder that is new or empty.

    Raises UserError, before anything is written to its place, on a bundle that is not whole, holds more than it says
    or names paths outside, and where the disk is too small.
    """
    bundle, folder = bundle.expanduser().resolve(), folder.expanduser().resolve()
    if not bundle.exists():
        raise UserError(f"no such bundle: {bundle}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty; name a new folder")
    if folder.is_relative_to(bundle):
        raise UserError(f"{folder} lies inside the bundle; name a folder elsewhere")
    part = folder.parent / f".{folder.name}.part"  # one that a killed process left goes
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"can't write to {folder.parent}: {error.strerror or error}; name another folder") from error
    try:
        contents, source = _opened(bundle, part)
        _verify(contents, source, bundle)
        tree, notes = part / "tree", list(_other_packages(contents))
        _clone(source / REPOSITORY, tree)
        put = shutil.copyfile if bundle.is_dir() else os.replace
        cache = _cache_of(tree, contents)
        _place(contents, source / DVC, cache, tree, put, mode=0o444)
        _place(contents, source / TREE, tree, tree, put, over=False)
        _place(contents, source / WEIGHTS, tree / ".tl" / WEIGHTS, tree, put)
        hub, told = _to_hub(contents, source)
        notes += told
        features = part / FEATURES
        if FEATURES in contents.files:
            put(source / FEATURES, features)
        if folder.exists():
            folder.rmdir()
        tree.rename(folder)
        notes += _finished(folder, contents, features)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Restored(folder / contents.project, contents, hub, tuple(notes))


def _opened(bundle: Path, part: Path) -> tuple[Contents, Path]:
    """What a bundle holds, and the folder that its files lie in; a tar is unpacked into `part`."""
    if bundle.is_dir():
        try:
            contents = Contents.read((bundle / MANIFEST).read_bytes(), bundle)
        except OSError as error:
            raise UserError(f"{bundle} is no bundle: it has no {MANIFEST}; copy it again") from error
        _room(contents, part)
        return contents, bundle
    unpacked = part / "unpacked"
    try:
        with tarfile.open(bundle, "r:") as tar:
            members = tar.getmembers()
            names = [member.name for member in members]
            if MANIFEST not in names:
                raise UserError(f"{bundle} is no bundle, or not whole: it has no {MANIFEST}; copy it again")
            stream = tar.extractfile(MANIFEST)
            contents = Contents.read(stream.read() if stream else b"", bundle)
            strange = [m.name for m in members if not m.isreg() or m.name not in {*contents.files, MANIFEST}]
            if strange or len(set(names)) != len(names):
                raise UserError(
                    f"{bundle} is refused: it holds what its {MANIFEST} doesn't name "
                    f"({', '.join(map(repr, strange[:5])) or 'a file twice'}); nothing was written"
                )
            _room(contents, part)
            tar.extractall(unpacked, members=members, filter="data")
    except tarfile.TarError as error:
        raise UserError(f"{bundle} can't be unpacked ({error}); copy it again") from error
    return contents, unpacked


def _room(contents: Contents, part: Path) -> None:
    """Raises UserError where the disk is too small: DVC's cache and the working tree each hold the data."""
    twice = sum(file.size for name, file in contents.files.items() if name.startswith(f"{DVC}/") or name == REPOSITORY)
    room(part, contents.size + twice, "the project")


def _verify(contents: Contents, source: Path, bundle: Path) -> None:
    """Raises UserError that names every file that is not what the bundle's manifest says."""
    faults = []
    with progress(contents.size, "verify", unit="B") as bar:
        for name, file in contents.files.items():
            path = source / name
            if not path.resolve().is_relative_to(source.resolve()) or not path.is_file():
                faults.append(f"{name} is missing" if not path.exists() else f"{name} leads out of the bundle")
                continue
            digest = hashlib.sha256()
            with path.open("rb") as stream:
                while block := stream.read(BLOCK):
                    digest.update(block)
                    bar.update(len(block))
            size = path.stat().st_size
            if size != file.size:
                faults.append(f"{name} has {size:,} bytes instead of {file.size:,}")
            elif digest.hexdigest() != file.sha256:
                faults.append(f"{name} has sha256 {digest.hexdigest()[:12]} instead of {file.sha256[:12]}")
    if REPOSITORY not in contents.files:
        faults.append(f"{REPOSITORY} is missing")
    if faults:
        more = [f"and {len(faults) - NAMED:,} more"] if len(faults) > NAMED else []
        raise UserError("\n".join([f"{bundle} is damaged; copy it again", *faults[:NAMED], *more]))


def _clone(history: Path, tree: Path) -> None:
    try:
        git(history.parent, "clone", "--quiet", str(history), str(tree))
        git(tree, "remote", "remove", "origin")  # the bundle need not stay
    except GitError as error:
        raise UserError(f"git can't clone what the bundle holds: {error}") from error


def _cache_of(tree: Path, contents: Contents) -> Path:
    """DVC's cache of the new project: in the project, whatever the machine that made the bundle used."""
    repository = find_repository(tree / contents.project)
    if repository is None or not (repository / ".dvc").resolve().is_relative_to(tree.resolve()):
        raise UserError("the bundle's commit holds no DVC repository (.dvc/); commit it and make the bundle again")
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(repository / ".dvc" / "config", encoding="utf-8")
    if settings.has_option("cache", "dir"):
        write_text(repository / ".dvc" / "config.local", "[cache]\n    dir = cache\n")
    return repository / ".dvc" / "cache"


def _place(
    contents: Contents,
    source: Path,
    target: Path,
    tree: Path,
    put: Callable[[Path, Path], Any],
    *,
    mode: int | None = None,
    over: bool = True,
) -> None:
    """Put the files below one of the bundle's folders to the same places below `target`, inside of `tree`.

    over: in place of what is there. Raises UserError where a link that git holds leads out of the tree.
    """
    for name in contents.files:
        if not name.startswith(f"{source.name}/"):
            continue
        inner = name.removeprefix(f"{source.name}/")
        path = target / inner
        real = path.parent.resolve()
        if not real.is_relative_to(tree.resolve()):
            raise UserError(f"the bundle is refused: its repository holds a link by which {name} would lie in {real}")
        if over or not os.path.lexists(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # never write through a link
            put(source / inner, path)
            if mode is not None:
                path.chmod(mode)


def _to_hub(contents: Contents, source: Path) -> tuple[Path | None, list[str]]:
    """Put the hub's files into its cache on this machine, where loaders find them offline."""
    names = [name for name in contents.files if name.startswith(f"{HUB}/")]
    if not names:
        return None, []
    try:
        from huggingface_hub import constants
    except ImportError as error:
        raise UserError("the bundle holds weights of the hub, whose library is missing: huggingface-hub") from error
    hub, notes = Path(constants.HF_HUB_CACHE), []
    for name in names:
        path = hub / name.removeprefix(f"{HUB}/")
        if _same(path, contents.files[name].sha256):
            continue
        if "/refs/" in name and path.exists():
            notes.append(f"{path} names another commit than the bundle; it was left as it is")
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f".{path.name}.{os.getpid()}.part")
            shutil.copyfile(source / name, new)
            new.replace(path)
        except OSError as error:
            raise UserError(
                f"can't write to the hub's cache {hub}: {error.strerror or error}; name another with HF_HOME"
            ) from error
    return hub, notes


def _same(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _finished(folder: Path, contents: Contents, features: Path) -> Iterator[str]:
    """What a run or a hand can do again: data and results in the working tree, features in the store."""
    project = folder / contents.project
    if contents.moved:
        edit_params(project / PARAMS, _edits(project, folder, contents))
        told = "; ".join(f"{old} lies in {folder / '.tl' / new}" for old, new in contents.moved.items())
        yield (
            f"weights from outside of the repository: {told}; where params.yaml names them it was changed (commit "
            "that), and a model that stands on them takes --backbone PATH"
        )
    yield from _checked_out(project)
    if features.exists():
        from tl_flows.stores import open_store, workspace_of

        done = open_store(None, workspace_of(project), new=True).import_(features)
        if done.damaged:
            yield f"{len(done.damaged):,} features are damaged and are computed again"


def _checked_out(project: Path) -> Iterator[str]:
    """Data and the last run's results out of DVC's cache into the working tree, as far as they travelled."""
    from tl_flows.stage_process import StageError, run_dvc
    from tl_flows.versioning import tracked

    data = project / Path(load_config(project / PARAMS).data.path).expanduser()
    found = tracked(project, data)
    targets = [PIPELINE] if found is None else [found.fetch[-1], PIPELINE]
    try:
        run_dvc(project, ["checkout", "--quiet", "--allow-missing", *targets], lambda _: None, _SECONDS)
    except (StageError, UserError) as error:
        yield f"DVC could not put all files in place: {error}"


def _edits(project: Path, folder: Path, contents: Contents) -> Mapping[str, Any]:
    """select.backbones with the new places of weights that lay outside of the repository."""
    named = load_config(project / PARAMS).select.backbones
    moved = list(named)
    for old, new in contents.moved.items():
        moved = [name.replace(old, str(folder / ".tl" / new)) for name in moved]
    return {"select.backbones": moved} if moved != list(named) else {}


def _other_packages(contents: Contents) -> Iterator[str]:
    for dist, version in sorted(contents.packages.items()):
        try:
            here = importlib.metadata.version(dist)
        except importlib.metadata.PackageNotFoundError:
            yield f"the package {dist} {version} is not installed here; pip install it from wheels"
            continue
        if here != version:
            yield f"{dist} is {here} here and was {version} where the bundle was made"
