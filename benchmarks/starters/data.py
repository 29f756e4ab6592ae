"""The data sets: a sample project of the repository, sets with a test split, and sets that are cross-validated."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from tl_core.config import RunConfig, load_config, validate
from tl_core.manifest import Manifest, scan
from tl_core.manifest.splits import TEST, assign, make_units
from tl_core.registry import Registry
from tl_core.types import SPLITS

ROOT = Path(__file__).resolve().parents[2]

PROJECTS = {"image": "demo/image", "audio": "demo/audio", "text": "."}
"""The folder whose params.yaml names the sample of a modality, and how it is split and grouped."""

SETS: dict[str, tuple[str, ...]] = {
    "image": ("caltech20", "hymenoptera", "sign_digits", "pacs_mini"),
    "audio": ("esc10", "fsdd"),
    "text": (),
}

FOLDS = {"esc10": ("fold", "freesound_id"), "fsdd": ("speaker", "speaker")}
"""Cross-validated sets: the column that names the fold, and the one whose values stay together."""


@dataclass(frozen=True)
class DataSet:
    """folds: one manifest a fold, equal but for their splits; every test row is tested in one of them."""

    name: str
    folds: tuple[Manifest, ...]

    @property
    def test_groups(self) -> list[str] | None:
        """The group of each test row, folds after one another; None where rows have none."""
        found = [fold.groups(fold.rows("test")) for fold in self.folds]
        return None if found[0] is None else [group for groups in found for group in groups or ()]


def sample(modality: str, registry: Registry, cache: Path) -> DataSet | None:
    """The sample of a modality as `tl run` reads it; None where it is not there."""
    project = ROOT / PROJECTS[modality]
    if not (project / "params.yaml").is_file():
        return None
    config = load_config(project / "params.yaml")
    path = (project / config.data.path).resolve()
    if not path.exists():
        return None
    return DataSet(f"data/{path.name}", (_scan(path, config, registry, cache),))


def real_set(name: str, data: Path, registry: Registry, cache: Path) -> DataSet | None:
    """A set of real data by its folder's name; None where it is not there."""
    path = data / "datasets" / name
    if not path.is_dir():
        return None
    fold_column, group_column = FOLDS.get(name, (None, None))
    config = validate({"data": {"group": group_column}})
    manifest = _scan(path, config, registry, cache)
    if fold_column is None:
        return DataSet(name, (manifest,))
    with (path / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        fold_of = {row["file"]: row[fold_column] for row in csv.DictReader(stream)}
    values = [fold_of[id_] for id_ in manifest.table["id"].to_pylist()]
    return DataSet(name, cross_validated(manifest, values, config))


def cross_validated(manifest: Manifest, values: Sequence[str], config: RunConfig) -> tuple[Manifest, ...]:
    """One manifest for each distinct value: its rows are the test split, and validation is carved out of the others
    as a scan does, whole groups at a time.

    values: by row of the manifest.
    """
    rows = manifest.rows()
    names, contents = np.unique(manifest.digests(rows), return_inverse=True)
    units = make_units(contents.astype(np.int64), names.tolist(), manifest.groups(rows))
    fold = np.asarray(values)[rows]
    column = manifest.table.schema.get_field_index("split")
    folds = []
    for value in np.unique(fold):
        official = np.where(fold == value, TEST, -1).astype(np.int8)
        assigned, _ = assign(official, {TEST}, units, manifest.target_array(rows), config)
        splits = np.zeros(len(manifest), np.int8)  # quarantined rows are in no split that is read
        splits[rows] = assigned
        text = pa.array(SPLITS, pa.string()).take(pa.array(splits))
        field = manifest.table.schema.field(column)
        folds.append(replace(manifest, table=manifest.table.set_column(column, field, text)))
    return tuple(folds)


def _scan(path: Path, config: RunConfig, registry: Registry, cache: Path) -> Manifest:
    return scan(path, config, registry.loaders(), base=ROOT, cache=cache / "scan")
