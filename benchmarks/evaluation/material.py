"""Real sets with their features, and with near copies of some of their rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.evaluation.copies import CHANGES
from benchmarks.selection.setting import spec_of
from tl_core.config import validate
from tl_core.evaluation.bootstrap import Ints
from tl_core.extraction import embed, extract, features, space_of
from tl_core.manifest import Manifest, scan
from tl_core.registry import Registry
from tl_core.store import FeatureStore
from tl_core.types import Backbone, Loader, Targets

IMAGE, TEXT, AUDIO = "mobilenetv2_100_imagenet", "minilm_l6_vocab15k", "yamnet_audioset"
COPIES = 120  # near copies of a set, which the draws take from
SETS: dict[str, tuple[str, str, str | None]] = {
    "caltech20": ("image", IMAGE, None),
    "sign_digits": ("image", IMAGE, None),
    "trec6": ("text", TEXT, None),
    "banking77": ("text", TEXT, None),
    "sst2_mini": ("text", TEXT, None),
    "esc10": ("audio", AUDIO, None),
    "fsdd": ("audio", AUDIO, "speaker"),
}
"""Modality, backbone, and the group column where there is one."""
STYLES = "pacs_mini"  # its column `domain`: photo, art_painting, cartoon, sketch
EMBEDDED = SETS | {"hymenoptera": ("image", IMAGE, None), STYLES: ("image", IMAGE, "domain")}
"""The sets that there are features of; no faults are planted in the last two."""


@dataclass(frozen=True, eq=False)
class Embedded:
    """A set in its backbone's space: features float32 [N, D], truth int64 [N], splits and groups of its N good rows."""

    loader: Loader
    backbone: Backbone
    manifest: Manifest
    rows: Ints
    features: np.ndarray
    truth: Ints
    splits: np.ndarray
    groups: list[str] | None


@dataclass(frozen=True, eq=False)
class Material:
    """A set: features float32 [N, D], truth int64 [N], splits and digests of its rows, groups where it has them, and
    float32 [COPIES, D] of near copies: of which row each is, and what was done to it. harmed: the same rows under the
    corruption of that name, at severity 3."""

    name: str
    modality: str
    backbone: str
    targets: Targets
    features: np.ndarray
    truth: Ints
    splits: np.ndarray
    ids: list[str]
    digests: list[str]
    groups: list[str] | None
    copies: np.ndarray
    copied: Ints
    changes: list[str]
    harmed: np.ndarray
    corruption: str


def embedded(name: str, data: Path, cache: Path, registry: Registry) -> Embedded:
    """A set by the name of its folder; features come from the store in the cache, and are computed where it lacks them.

    The splits are the data's own; where they bring no validation rows, some training rows are called so.
    """
    modality, backbone_name, group = EMBEDDED[name]
    loader, store = registry.loader(modality), FeatureStore(cache / "store")
    config = validate({"data": {"group": group}})
    manifest = scan(data / "datasets" / name, config, [loader], cache=cache / "scan", progress=False)
    rows = manifest.rows()
    backbone = spec_of(registry, data, backbone_name, modality).build()
    # one engine and float32 for all rows and for what is made of them
    extract(manifest, rows, loader, backbone, store, device="cpu", precision="float32", engine="torch", label=name)
    space = space_of(backbone, "float32")
    found = features(manifest, rows, loader, lambda: backbone, space, store, device="cpu", engine="torch")
    return Embedded(
        loader=loader,
        backbone=backbone,
        manifest=manifest,
        rows=rows,
        features=found,
        truth=manifest.target_array(rows),
        splits=np.asarray(manifest.table["split"].to_pylist())[rows],
        groups=manifest.groups(rows),
    )


def material(name: str, data: Path, cache: Path, registry: Registry) -> Material:
    """A set with near copies and harmed rows, which are kept in the cache as its features are."""
    modality, backbone_name, _ = SETS[name]
    of = embedded(name, data, cache, registry)
    manifest, rows, loader, backbone = of.manifest, of.rows, of.loader, of.backbone
    copied = np.sort(np.random.default_rng(0).choice(np.flatnonzero(of.splits != "test"), COPIES, replace=False))
    kinds = CHANGES[modality]
    changes = [list(kinds)[place % len(kinds)] for place in range(COPIES)]
    corruption, harm = next(iter(loader.corruptions.items()))

    def changed(name: str, change: Callable[[int, Any], Any]) -> np.ndarray:
        """Features of the chosen rows after a change of each, kept in the cache."""
        path = cache / "copies" / f"{name}-{backbone.fingerprint[:16]}.npy"
        if not path.is_file():
            samples = enumerate(manifest.samples(rows[copied]))
            prepared = [backbone.prepare(change(place, loader.decode(sample.source))) for place, sample in samples]
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, embed(backbone, prepared, torch.device("cpu"), "float32").numpy(), allow_pickle=False)
        return np.asarray(np.load(path, allow_pickle=False))

    copies = changed(name, lambda place, one: kinds[changes[place]](one, np.random.default_rng((0, place))))
    harmed = changed(f"{name}-{corruption}", lambda place, one: harm(one, 3, np.random.default_rng((1, place))))
    return Material(
        name=name,
        modality=modality,
        backbone=backbone_name,
        targets=manifest.targets,
        features=of.features,
        truth=of.truth,
        splits=of.splits,
        ids=[sample.id for sample in manifest.samples(rows)],
        digests=manifest.digests(rows),
        groups=of.groups,
        copies=copies,
        copied=copied,
        changes=changes,
        harmed=harmed,
        corruption=corruption,
    )
