"""What must change an image backbone's fingerprint, and what must not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tl_image
import torch
from safetensors.torch import load_file, save_file

Folder = Callable[..., Path]
Patch = pytest.MonkeyPatch


def fingerprint(folder: Path) -> str:
    [spec] = tl_image.tl_resolve_backbone(name=str(folder), modality="image")
    return spec.build().fingerprint


def edited(folder: Path, **numbers: Any) -> None:
    """The folder's config with other preprocessing numbers."""
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= numbers
    (folder / "config.json").write_text(json.dumps(config))


def nudge_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    tensors[name].view(-1)[0] += 1e-3
    save_file(tensors, folder / "model.safetensors")


def other_stride(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_args": {"output_stride": 16}}))


MISSES: dict[str, Callable[[Path, Patch], Any]] = {
    "one weight": lambda folder, _: nudge_weights(folder),
    "an argument of the architecture": lambda folder, _: other_stride(folder),
    "input size": lambda folder, _: edited(folder, input_size=[3, 96, 96]),
    "crop": lambda folder, _: edited(folder, crop_pct=0.875),
    "crop mode": lambda folder, _: edited(folder, crop_mode="squash"),
    "mean": lambda folder, _: edited(folder, mean=[0.485, 0.456, 0.407]),
    "deviation": lambda folder, _: edited(folder, std=[0.229, 0.224, 0.226]),
    "interpolation": lambda folder, _: edited(folder, interpolation="bilinear"),
    "what resizing gives": lambda _, patch: patch.setattr("tl_image.preprocessing._torch_digest", lambda _: "other"),
    "version of what decodes": lambda _, patch: patch.setattr("PIL.__version__", "99.0"),
    "version of the loader": lambda _, patch: patch.setattr("tl_image.loader.ImageLoader.version", 2),
    "margin of scaled JPEGs": lambda _, patch: patch.setattr("tl_image.jpeg.MARGIN", 3.0),
    "format version": lambda _, patch: patch.setattr("tl_core.types.FORMAT_VERSION", 99),
}


@pytest.mark.parametrize("change", MISSES)
def test_must_miss(timm_folder: Folder, monkeypatch: Patch, change: str) -> None:
    folder = timm_folder()
    before = fingerprint(folder)
    MISSES[change](folder, monkeypatch)
    assert fingerprint(folder) != before


def moved(folder: Path, _: Patch) -> Path:
    return folder.rename(folder.with_name("another name"))


def copied(folder: Path, _: Patch) -> Path:
    return Path(shutil.copytree(folder, folder.parent / "deep/down"))


def touched(folder: Path, _: Patch) -> Path:
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    return folder


def by_file(folder: Path, _: Patch) -> Path:
    return folder / "model.safetensors"


def described(folder: Path, _: Patch) -> Path:
    """Its card, its labels and the order of its config's keys."""
    (folder / "README.md").write_text("A model.")
    config = json.loads((folder / "config.json").read_text()) | {"label_names": ["a", "b"]}
    (folder / "config.json").write_text(json.dumps(dict(reversed(config.items())), indent=4))
    return folder


def stated(folder: Path, _: Patch) -> Path:
    """Numbers that were defaults before."""
    edited(folder, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], crop_mode="center")
    return folder


def other_build_of_torch(folder: Path, patch: Patch) -> Path:
    patch.setattr(torch, "__version__", torch.__version__.partition("+")[0] + "+rocm1")
    return folder


def other_threads(folder: Path, patch: Patch) -> Path:
    patch.setenv("OMP_NUM_THREADS", "7")
    return folder


HITS = (moved, copied, touched, by_file, described, stated, other_build_of_torch, other_threads)


@pytest.mark.parametrize("change", HITS, ids=lambda change: change.__name__)
def test_must_hit(timm_folder: Folder, monkeypatch: Patch, change: Callable[[Path, Patch], Path]) -> None:
    folder = timm_folder()
    before = fingerprint(folder)
    assert fingerprint(change(folder, monkeypatch)) == before


def test_torch_is_no_part_where_pillow_resizes(timm_folder: Folder, monkeypatch: Patch) -> None:
    folder = timm_folder()
    edited(folder, interpolation="lanczos")
    before = fingerprint(folder)
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    assert fingerprint(folder) == before
