"""Class folders: `<class>/<file>`, or `<split>/<class>/<file>`."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from tl_core.errors import UserError
from tl_core.manifest.listing import ALLOWED_SPLITS, SPLIT_NAMES, Listing, Rows, clean
from tl_core.manifest.modality import kinds, loader_of_files, suffix_of
from tl_core.manifest.paths import DataRoot
from tl_core.manifest.tables import BLOCK_ROWS
from tl_core.types import Loader

DROPPINGS = frozenset({"thumbs.db", "desktop.ini", "__macosx"})  # what operating systems leave in any folder
SIDECARS = frozenset({"readme", "license", "licence", "notice", "attribution", "citation", "changelog"})

_File = tuple[str, str | None, str | None]  # source, label, split


def visible(folder: str) -> list[os.DirEntry[str]]:
    """Entries of a folder by name, without hidden ones. Raises UserError where it can't be listed."""
    try:
        with os.scandir(folder) as entries:
            found = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in DROPPINGS]
    except OSError as error:
        raise UserError(f"unreadable folder {folder}: {error.strerror}; check its permissions") from error
    return sorted(found, key=lambda entry: entry.name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one (a link to itself is none)."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def list_folders(root: Path, loaders: Sequence[Loader], loader: Loader | None) -> Listing:
    """All files in class folders, sorted by path.

    loader: the user's modality, None where it is to be guessed. Files beside the class folders are left out,
    unless they are of a kind that the loader reads (those have no label). Raises UserError with what is wrong.
    """
    top = visible(str(root))
    folders = [entry for entry in top if is_folder(entry)]
    splits = [e for e in folders if e.name.lower() in SPLIT_NAMES and any(map(is_folder, visible(e.path)))]
    inside = DataRoot(root).contains
    notes: list[str] = []
    files: list[_File] = [(e.name, None, None) for e in top if not is_folder(e)]
    if splits:
        _refuse_unknown_splits(root, [e.name for e in folders if e not in splits])
        for entry in splits:
            split = SPLIT_NAMES[entry.name.lower()]
            loose = [e for e in visible(entry.path) if not is_folder(e)]
            files += [(f"{entry.name}/{e.name}", None, split) for e in loose]
            files += _class_folders(entry.path, f"{entry.name}/", split, inside, notes)
    else:
        files += _class_folders(str(root), "", None, inside, notes)
    labelled = [source for source, label, _ in files if label is not None]
    if not labelled:
        raise UserError(
            f"no samples in {root}: expected class folders with files, <class>/<file> or <split>/<class>/<file>, "
            "or a table (metadata.csv, train.csv, ...)"
        )
    if loader is None:
        loader, note = loader_of_files(Counter(map(suffix_of, labelled)), loaders, str(root))
        notes.insert(0, note)
    read = kinds(loader, loaders)
    files = [f for f in files if f[1] is not None or (suffix_of(f[0]) in read and not _is_sidecar(f[0]))]
    files.sort(key=lambda file: file[0])
    return Listing(_table(files), root, loader, inline=False, notes=tuple(notes))


def _class_folders(
    folder: str, prefix: str, split: str | None, inside: Callable[[str], bool], notes: list[str]
) -> Iterator[_File]:
    """All files in the class folders of a folder, however deep; the class is the first folder's name."""
    for entry in visible(folder):
        if not is_folder(entry):
            continue
        inner = [child.name for child in visible(entry.path) if is_folder(child)]
        if inner and all(name.lower() in SPLIT_NAMES for name in inner):
            raise UserError(
                f"the folder {entry.path} holds splits ({', '.join(inner)}): expected <split>/<class>/<file>; "
                "move the splits up, or list the files in a metadata.csv with columns file, split, label"
            )
        sources = list(_walk(entry, prefix + entry.name, inside, (os.path.realpath(folder),)))
        if not sources:
            notes.append(f"the folder {prefix}{entry.name} holds no files and is left out")
        deeper = sum(source.count("/") > prefix.count("/") + 1 for source in sources)
        if deeper:
            notes.append(f"files in subfolders of {prefix}{entry.name} ({deeper}) are labelled '{entry.name}'")
        label = clean(_shown(entry.name))
        for source in sources:
            yield source, label, split


def _walk(entry: os.DirEntry[str], source: str, inside: Callable[[str], bool], above: tuple[str, ...]) -> Iterator[str]:
    """Paths of all files below a folder. A link to a folder outside is a row of its own (which the scan refuses)."""
    if entry.is_symlink() and not inside(entry.path):
        yield source
        return
    real = os.path.realpath(entry.path)
    if real in above:  # a link to a folder that holds it
        return
    for child in visible(entry.path):
        if is_folder(child):
            yield from _walk(child, f"{source}/{child.name}", inside, (*above, real))
        else:
            yield f"{source}/{child.name}"


def _table(files: Sequence[_File]) -> pa.Table:
    rows = Rows()
    for start in range(0, len(files), BLOCK_ROWS):
        block = files[start : start + BLOCK_ROWS]
        sources = [_shown(source) for source, _, _ in block]
        rows.add(
            ids=[unicodedata.normalize("NFC", source) for source in sources],
            sources=sources,
            labels=[label for _, label, _ in block],
            splits=[split for _, _, split in block],
            groups=[None] * len(block),
            reasons=[
                "file name is not valid UTF-8" if shown != source else None
                for shown, (source, _, _) in zip(sources, block)
            ],
        )
    return rows.table()


def _refuse_unknown_splits(root: Path, names: Sequence[str]) -> None:
    if names:
        raise UserError(
            f"unknown split folders in {root}: {', '.join(names)}; allowed: {ALLOWED_SPLITS}; rename them or move "
            "them out of the data folder"
        )


def _is_sidecar(source: str) -> bool:
    return Path(source).stem.lower() in SIDECARS


def _shown(name: str) -> str:
    """A file name as text, also where its bytes are no UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
