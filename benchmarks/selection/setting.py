"""The sets, the candidates and their random-weight twins that the ranking is measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tl_core.config import validate
from tl_core.manifest import Manifest, scan
from tl_core.registry import Registry
from tl_core.selection.sample import stratified_sample
from tl_core.types import BackboneSpec

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
TWIN_SEED = 7  # the weights that a random twin draws

IMAGES = (
    "mobilenet_v1_025_224_imagenet",
    "mobilenet_v1_050_160_imagenet",
    "mobilenetv1_100_imagenet",
    "mobilenetv2_100_imagenet",
    "mobilenetv2_100_inat_birds",
    "mobilenetv2_100_inat_insects",
    "squeezenet1_0_imagenet",
    "starter-image",
)
IMAGE_TWINS = ("mobilenet_v1_025_224_imagenet", "mobilenet_v1_050_160_imagenet")
# two checkpoints of one family, whole and cut short: depth is what a text user chooses first
TEXTS = (
    "all-minilm-l6-v2",
    "all-minilm-l6-v2-first3",
    "minilm_l6_vocab15k",
    "minilm_l6_vocab15k:4",
    "minilm_l6_vocab15k:3",
    "minilm_l6_vocab15k:2",
    "minilm_l6_vocab15k:1",
)
TEXT_TWINS = ("all-minilm-l6-v2-first3", "minilm_l6_vocab15k", "minilm_l6_vocab15k:1")


@dataclass(frozen=True)
class Case:
    """A data set, the training rows that are used of it, and who competes on it."""

    dataset: str
    modality: str
    rows: int
    backbones: tuple[str, ...]
    twins: tuple[str, ...]
    flip: bool = False  # whether a mirrored sample keeps its label

    @property
    def candidates(self) -> list[tuple[str, int | None]]:
        """(name, random seed or None) of all who compete."""
        return [(name, None) for name in self.backbones] + [(name, TWIN_SEED) for name in self.twins]


CASES = {
    case.dataset: case
    for case in (
        Case("sign_digits", "image", 300, IMAGES, IMAGE_TWINS),
        Case("hymenoptera", "image", 300, IMAGES, IMAGE_TWINS, flip=True),
        Case("trec6", "text", 300, TEXTS, TEXT_TWINS),
        Case("caltech20", "image", 300, IMAGES, IMAGE_TWINS, flip=True),
    )
}


def spec_of(registry: Registry, data: Path, name: str, modality: str) -> BackboneSpec:
    """A candidate by name: in the catalogue, or a folder under weights/, `:k` keeping its first k layers."""
    base, _, layers = name.partition(":")
    folder = data / "weights" / base
    spec = registry.backbone(str(folder) if folder.is_dir() else base, modality)
    options: Mapping[str, Any] = {**spec.options, "layers": int(layers)} if layers else spec.options
    return replace(spec, name=name, options=options)


def manifest_of(registry: Registry, data: Path, case: Case, cache: Path) -> Manifest:
    """The set's manifest; nothing is held back for validation: no choice is made by it."""
    config = validate({"data": {"val_fraction": 0.001}})
    return scan(data / "datasets" / case.dataset, config, [registry.loader(case.modality)], cache=cache, progress=False)


def training_rows(manifest: Manifest, case: Case) -> np.ndarray:
    """The rows to learn from: a stratified sample of the training rows, at most as many as the case says."""
    return stratified_sample(manifest, case.rows, seed=0)
