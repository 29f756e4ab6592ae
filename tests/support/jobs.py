"""Small fits for tests: maps in files, a loader that augments them, and a job over both."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from chains import maps

from tl_core.config import validate
from tl_core.heads import linear_heads
from tl_core.manifest.table import SCHEMA, Manifest
from tl_core.store import FeatureStore, Space
from tl_core.training.job import Fitted, Job
from tl_core.training.seen import Seen
from tl_core.training.start import Start
from tl_core.types import Backbone, BackboneSpec, HeadSpec, Loader, Source, Targets

SHAPE = (3, 8, 8)
MULTICLASS: HeadSpec = next(spec for spec in linear_heads("map") if spec.task == "multiclass")


class Maps(Loader):
    """Raw float32 maps [3, 8, 8]; variants are mirrored and of another strength."""

    modality = "map"
    extensions = frozenset({".map"})

    def __init__(self) -> None:
        self.decoded = 0

    def decode(self, source: Source) -> torch.Tensor:
        self.decoded += 1
        return torch.from_numpy(np.fromfile(source, np.float32).reshape(SHAPE))

    def augment(self, decoded: Any, rng: np.random.Generator) -> Any:
        flipped = decoded.flip(2) if rng.random() < 0.5 else decoded
        return flipped * float(rng.uniform(0.5, 1.5))

    def render(self, source: Source) -> str:
        return "<p>map</p>"


class PlainMaps(Maps):
    """The same without augmentation."""

    augment = Loader.augment


def manifest_of(files: Sequence[Path], split: Sequence[str], label: Sequence[str], modality: str) -> Manifest:
    """A manifest of files; its classes are the labels' names in order."""
    names = [path.name for path in files]
    digests = [hashlib.md5(path.read_bytes()).hexdigest() for path in files]
    n = len(files)
    columns = [names, digests, names, [False] * n, list(label), list(split), [None] * n, [None] * n]
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)
    targets = Targets("multiclass", tuple(sorted(set(label))))
    return Manifest(table, modality, targets, str(files[0].parent), (), "v1")


def write_maps(folder: Path, train: int = 21, val: int = 10, apart: float = 0.5) -> Manifest:
    """Maps of two classes whose means are so far apart, where each value varies by 1."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{i:03}.map" for i in range(train + val)]
    label = ["ab"[i % 2] for i in range(train + val)]
    for path, name in zip(files, label):
        (rng.normal(size=SHAPE) + (apart if name == "b" else 0)).astype(np.float32).tofile(path)
    return manifest_of(files, ["train"] * train + ["val"] * val, label, "map")


def job_of(
    manifest: Manifest, root: Path, *, loader: Loader | None = None, backbone: Any = maps, seed: int = 0, **tune: Any
) -> Job:
    """A job on the CPU in float32. backbone: what the spec builds, called without arguments."""
    settings = {"strategy": "finetune", "epochs": 3, "batch_size": 8, "precision": "float32", **tune}
    config = validate({"seed": seed, "tune": settings, "extract": {"engine": "torch", "precision": "float32"}})
    built: Backbone = backbone()
    spec = BackboneSpec("net", manifest.modality, "folder", "nowhere", lambda spec, seed: backbone())
    return Job(
        manifest=manifest,
        train=manifest.rows("train"),
        val=manifest.rows("val"),
        loader=loader or Maps(),
        spec=spec,
        head_spec=MULTICLASS,
        config=config,
        device=torch.device("cpu"),
        space=Space(built.fingerprint, "end", "float32"),
        store=FeatureStore(root / "store"),
        state=root / "state",
    )


def start_of(fitted: Fitted, job: Job) -> Start:
    """A fit of the job as a model that another one goes on from."""
    assert fitted.backbone is not None
    prefixes = tuple(f"segments.{name}." for name in fitted.trained)
    held = {name: tensor.clone() for name, tensor in fitted.backbone.state_dict().items() if name.startswith(prefixes)}
    head = {name: tensor.clone() for name, tensor in fitted.head.state_dict().items()}
    seen = Seen.of(job.manifest, job.train, job.val)
    return Start("f" * 32, fitted.trained, held, head, job.task.classes, seen)
