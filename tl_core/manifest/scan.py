"""From a folder or a table to a manifest: list, read labels, open every sample, split, and say what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tl_core.config import RunConfig
from tl_core.errors import UserError, did_you_mean
from tl_core.manifest.checks import examine
from tl_core.manifest.columns import named_columns
from tl_core.manifest.demands import require_trainable
from tl_core.manifest.duplicates import contradictions, copies, several
from tl_core.manifest.folders import is_folder, list_folders, visible
from tl_core.manifest.labels import NO_LABEL, Labels, read_labels, strata
from tl_core.manifest.listing import ATTRIBUTE, Listing
from tl_core.manifest.modality import kinds, named_loader
from tl_core.manifest.splits import TEST, TRAIN, assign, make_units
from tl_core.manifest.table import SCHEMA, Manifest, version_of
from tl_core.manifest.tables import SUFFIXES
from tl_core.manifest.tabular import find_tables, list_tables
from tl_core.manifest.test_set import TestSet
from tl_core.types import SPLITS, Loader, Targets


def scan(
    path: Path,
    config: RunConfig,
    loaders: Sequence[Loader],
    *,
    base: Path | None = None,
    cache: Path | None = None,
    digests: Mapping[str, str] | None = None,
    progress: bool = True,
) -> Manifest:
    """Read a data set: class folders, a folder with tables, or one table; every sample is opened once.

    base: the manifest's root is stored relative to it where it lies inside, else absolute; cache: folder that
    remembers digests and checks, None to remember nothing; digests: known md5s by path relative to `path`. A relative
    `data.holdout` is below base. Raises UserError, with all faults that can be told at once, where no run could use the
    data. How many unusable samples are too many is for `Manifest.require_usable` to say.
    """
    known = digests or {}
    held = _held(config, base)
    listing = _list(path.expanduser(), config, loaders, known)
    labels = read_labels(listing, config.data)
    contents, reasons = examine(listing, kinds(listing.loader, loaders), cache, known, progress)
    if labels.task != "multilabel":
        for row in np.flatnonzero(labels.codes < 0).tolist():
            reasons.setdefault(row, NO_LABEL)
    for row in np.flatnonzero(np.isin(labels.codes, list(labels.reasons))).tolist():
        reasons.setdefault(row, labels.reasons[int(labels.codes[row])])
    splits, given, notes, carving = _split(listing, labels, contents, reasons, config, held)
    table = _table(listing, labels, contents, splits, reasons)
    root, base = _root(listing, base)
    manifest = Manifest(
        table=table,
        modality=listing.loader.modality,
        targets=Targets(labels.task, labels.classes(_taught(labels, reasons))),
        root=root,
        notes=(*listing.notes, *([labels.note] if labels.note else []), *notes),
        data_version=version_of(table),
        separator=labels.separator,
        base=base,
        group_column=config.data.group,
    )
    require_trainable(manifest, given, carving)
    return manifest


def _taught(labels: Labels, reasons: Mapping[int, str]) -> np.ndarray:
    """Labels that classes come from: of all rows, so that a class without a usable sample is missed.

    A rare tag of a multi-label set, though, may go with the unusable rows that had it.
    """
    return labels.codes[_usable(len(labels.codes), reasons)] if labels.task == "multilabel" else labels.codes


def _list(path: Path, config: RunConfig, loaders: Sequence[Loader], known: Mapping[str, str]) -> Listing:
    """The rows, by what lies at the path."""
    loader = named_loader(config.modality, loaders) if config.modality else None
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise UserError(f"can't read {path} as a table: expected a folder or a file of {', '.join(SUFFIXES)}")
        return list_tables([(path, None)], path.parent, config, loaders, loader, known)
    if not path.is_dir():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*")]) or ";"
        raise UserError(f"no such folder or table: {path}{near} data.path (or --data) names the samples")
    entries = visible(str(path))
    if not entries:
        raise UserError(f"the folder {path} is empty: expected class folders with files, or a table")
    tables = find_tables(path)
    if not tables and not any(map(is_folder, entries)):
        alone = [path / entry.name for entry in entries if Path(entry.name).suffix.lower() in SUFFIXES]
        if len(alone) > 1:
            names = ", ".join(p.name for p in alone)
            raise UserError(f"{path} holds several tables ({names}); give one as data.path, or name them by split: "
                            "train.csv, val.csv, test.csv")  # fmt: skip
        tables = [(table, None) for table in alone]
    if tables:
        return list_tables(tables, path, config, loaders, loader, known)
    unusable = [f"{key} '{name}'" for key, name in named_columns(config.data)]
    if unusable:
        raise UserError(f"{' and '.join(unusable)}: class folders such as those in {path} have no columns; "
                        "list the files in a metadata.csv, or leave it unset")  # fmt: skip
    return list_folders(path, loaders, loader)


def _held(config: RunConfig, base: Path | None) -> TestSet | None:
    """The frozen test set that the config names."""
    if config.data.holdout is None:
        return None
    return TestSet.load((base or Path()) / Path(config.data.holdout).expanduser())


def _split(
    listing: Listing,
    labels: Labels,
    digests: pa.Array,
    reasons: dict[int, str],
    config: RunConfig,
    held: TestSet | None,
) -> tuple[np.ndarray, set[int], list[str], str | None]:
    """int8 [N]: all rows' splits; the splits that the data bring; notes; why nothing could be carved.

    Adds contradictory rows to reasons.
    """
    names = pa.array(SPLITS)
    official = pc.fill_null(pc.index_in(listing.rows["split"], names), -1).to_numpy().astype(np.int8)
    splits = np.where(official < 0, TRAIN, official).astype(np.int8)  # quarantined rows keep this
    stays = np.zeros(len(splits), bool)
    if held is not None:
        stays = pc.is_in(digests, pa.array(held.labels, pa.string())).to_numpy(zero_copy_only=False)
        splits[stays] = TEST
    encoded = digests.dictionary_encode()
    contents = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    ids = listing.rows["id"]

    rows = _usable(len(splits), reasons)
    reasons |= contradictions(rows, contents[rows], labels.codes[rows], splits[rows], lambda i: str(ids[i].as_py()))
    rows = _usable(len(splits), reasons)
    notes = copies(contents[rows], labels.codes[rows], splits[rows])

    groups = None
    if config.data.group is not None:
        groups = listing.rows["group"].take(pa.array(rows)).to_pylist()
    units = make_units(contents[rows], encoded.dictionary.to_pylist(), groups)
    usable = np.zeros(len(splits), bool)
    usable[rows] = True
    given = {int(split) for split in np.unique(official) if split >= 0}
    try:
        assigned, carved = assign(official[rows], given, units, strata(labels, usable)[rows], config, stays[rows])
    except UserError as error:
        return splits, given, notes, str(error)
    splits[rows] = assigned
    if held is not None:
        notes.append(_held_note(held, str(config.data.holdout), stays[rows], official[rows], assigned))
    if groups is not None:
        notes += _crossing_groups(groups, assigned, str(config.data.group))
    return splits, given, notes + carved, None


def _held_note(held: TestSet, name: str, stays: np.ndarray, official: np.ndarray, splits: np.ndarray) -> str:
    """How many rows the frozen test set keeps in test, and for how many the data or their group say otherwise."""
    note = (
        f"{int(stays.sum())} rows are in test because {name} holds them (test set version {held.version}, "
        f"{held.hash[:12]})"
    )
    moved = int(((official >= 0) & (official != TEST) & (splits == TEST)).sum())
    return note + (f"; the data's own splits have {moved} test rows elsewhere" if moved else "")


def _crossing_groups(groups: Sequence[str | None], splits: np.ndarray, column: str) -> list[str]:
    """Notes on groups that the data's own splits tear apart, and on rows without a group."""
    notes = []
    values = pa.array(groups, pa.string()).dictionary_encode()
    codes = pc.fill_null(values.indices, -1).to_numpy(zero_copy_only=False)
    named = codes >= 0
    crossing = len(np.unique(codes[named][several(codes[named], splits[named])]))
    if crossing:
        notes.append(
            f"{crossing} of {len(values.dictionary)} values of group column '{column}' occur in several of the data's "
            "own splits (kept)"
        )
    if not named.all():
        notes.append(
            f"{int((~named).sum())} rows name no group in column '{column}'; each counts as a group of its own"
        )
    return notes


def _usable(count: int, reasons: Mapping[int, str]) -> np.ndarray:
    good = np.ones(count, bool)
    good[list(reasons)] = False
    return np.flatnonzero(good)


def _table(
    listing: Listing, labels: Labels, digests: pa.Array, splits: np.ndarray, reasons: Mapping[int, str]
) -> pa.Table:
    count = listing.rows.num_rows
    columns = [
        listing.rows["id"],
        digests,
        listing.rows["source"],
        pa.repeat(pa.scalar(listing.inline), count),
        labels.text,
        pa.array(SPLITS, pa.string()).take(pa.array(splits)),
        listing.rows["group"],
        pa.array((reasons.get(row) for row in range(count)), pa.string(), size=count),
    ]
    table = pa.Table.from_arrays(columns, schema=SCHEMA)
    for name in listing.rows.column_names:
        if name.startswith(ATTRIBUTE):
            table = table.append_column(name, listing.rows[name])
    return table.combine_chunks()


def _root(listing: Listing, base: Path | None) -> tuple[str, Path]:
    """The root as it is stored, and the base that it is relative to."""
    base = (base or Path()).absolute()
    if listing.inline:
        return "", base
    root = listing.root.absolute()
    return (root.relative_to(base).as_posix() if root.is_relative_to(base) else root.as_posix()), base
