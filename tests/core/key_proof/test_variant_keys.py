"""The key's proof for stored states: of a variant none but its own, whatever else there is.

Each case stores the states before a cut, of one augmented variant of each training sample and of the validation
samples themselves, changes one thing, and asks what is lacking.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tl_core.manifest import Manifest
from tl_core.registry import load_registry
from tl_core.steps import version
from tl_core.store import FeatureStore, Space
from tl_core.training.job import Job
from tl_core.training.sources import variants_of
from tl_core.training.stored import StoredSource
from tl_core.workspace import Workspace

from .lab import Lab, image_lab

Patch = pytest.MonkeyPatch
ALL, TRAIN = "all", "training rows"


def states(lab: Lab, seed: int = 0, views: int = 1, precision: str = "float32", cut: int = 2) -> StoredSource:
    """The stored states of the lab's data as they are now; nothing is computed yet."""
    workspace = Workspace(lab.root, lab.root / lab.store, lab.root / "cache")
    version(lab.config(), lab.registry, workspace)
    manifest = Manifest.load(workspace.manifest, workspace.root)
    spec = lab.registry.backbone(str(lab.root / "weights"), "image")
    loader, backbone = lab.registry.loader("image"), spec.build()
    job = Job(
        manifest=manifest,
        train=manifest.rows("train"),
        val=manifest.rows("val"),
        loader=loader,
        spec=spec,
        head_spec=lab.registry.head("image", "multiclass", "linear"),
        config=lab.config(),
        device=torch.device("cpu"),
        space=Space(backbone.fingerprint, "end", precision),
        store=FeatureStore(workspace.store),
        state=lab.root / "state",
    )
    return StoredSource(job, backbone, cut, precision, variants_of(loader, seed, views), spec.build)


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab whose states have been stored."""
    registry = load_registry([("tl_image", pytest.importorskip("tl_image"))])
    lab = image_lab(tmp_path_factory.mktemp("variants") / "lab", registry)
    states(lab).fill()
    return lab


# what must miss


def another_seed(lab: Lab, patch: Patch) -> dict[str, Any]:
    return {"seed": 1}


def another_number(lab: Lab, patch: Patch) -> dict[str, Any]:
    return {"views": 2}


def no_augmentation(lab: Lab, patch: Patch) -> dict[str, Any]:
    return {"views": 0}


def augment_version(lab: Lab, patch: Patch) -> dict[str, Any]:
    patch.setattr("tl_image.loader.ImageLoader.augment_version", 99)
    return {}


def draw_version(lab: Lab, patch: Patch) -> dict[str, Any]:
    patch.setattr("tl_core.training.variants.DRAW_VERSION", 99)
    return {}


def loader_version(lab: Lab, patch: Patch) -> dict[str, Any]:
    patch.setattr("tl_image.loader.ImageLoader.version", 99)
    return {}


def format_version(lab: Lab, patch: Patch) -> dict[str, Any]:
    patch.setattr("tl_core.types.FORMAT_VERSION", 99)
    return {}


def weights(lab: Lab, patch: Patch) -> dict[str, Any]:
    tensors = load_file(lab.weights("model.safetensors"))
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] += 1e-3
    save_file(tensors, lab.weights("model.safetensors"))
    return {}


def preprocessing(lab: Lab, patch: Patch) -> dict[str, Any]:
    config = lab.weights("config.json")
    config.write_text(config.read_text().replace("[0.5, 0.5, 0.5]", "[0.5, 0.5, 0.501]", 1))
    return {}


def precision(lab: Lab, patch: Patch) -> dict[str, Any]:
    return {"precision": "bfloat16"}


def cut(lab: Lab, patch: Patch) -> dict[str, Any]:
    return {"cut": 3}


def sample_bytes(lab: Lab, patch: Patch) -> dict[str, Any]:
    for path in lab.files():
        pixels = np.asarray(Image.open(path)).copy()
        pixels[0, 0] ^= 1
        Image.fromarray(pixels).save(path)
    return {}


# what must hit


def nothing(lab: Lab, patch: Patch) -> dict[str, Any]:
    return {}


def renamed_backwards(lab: Lab, patch: Patch) -> dict[str, Any]:
    """So that every row has another number; what is a training sample stays one."""
    listed = [path for path in lab.files() if path.suffix == ".png"]
    split = split_of(lab)
    lines = ["file,label,split"]
    for i, path in enumerate(reversed(listed)):
        name = path.with_name(f"{i:03}-{path.name}")
        digest_split = split[path.relative_to(lab.root / lab.data).as_posix()]
        path.rename(name)
        lines.append(f"{name.relative_to(lab.root / lab.data).as_posix()},{path.parent.name},{digest_split}")
    (lab.root / lab.data / "metadata.csv").write_text("\n".join(lines))
    return {}


def moved(lab: Lab, patch: Patch) -> dict[str, Any]:
    shutil.move(lab.root / "data", lab.root / "elsewhere" / "data")
    lab.data = Path("elsewhere/data")
    return {}


def other_worker_count(lab: Lab, patch: Patch) -> dict[str, Any]:
    patch.setattr("tl_core.extraction.decoding.decoder_threads", lambda: 5)
    return {}


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        (another_seed, TRAIN),
        (another_number, TRAIN),
        (no_augmentation, TRAIN),
        (augment_version, TRAIN),
        (draw_version, TRAIN),
        (loader_version, ALL),
        (format_version, ALL),
        (weights, ALL),
        (preprocessing, ALL),
        (precision, ALL),
        (cut, ALL),
        (sample_bytes, ALL),
        (nothing, None),
        (renamed_backwards, None),
        (moved, None),
        (other_worker_count, None),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_states_of_a_variant_have_a_key_of_their_own(
    change: Callable[[Lab, Patch], dict[str, Any]], lacks: str | None, stored: Lab, tmp_path: Path, monkeypatch: Patch
) -> None:
    lab = stored.copied(tmp_path)
    assert states(lab).lacking() == 0
    options = change(lab, monkeypatch)
    source = states(lab, **options)
    spaces = source.wanted()
    train = sum(len(rows) for kept, rows in spaces if kept.variant) / max(1, options.get("views", 1))
    if not options.get("views", 1):
        train = len(spaces[0][1]) - len(states(lab).wanted()[0][1])
    every = sum(len(rows) for _, rows in spaces)
    assert train > 0
    assert source.lacking() == {None: 0, TRAIN: train, ALL: every}[lacks]
    source.fill()
    assert source.lacking() == 0
    truly(lab, source, options.get("seed", 0))


def truly(lab: Lab, source: StoredSource, seed: int) -> None:
    """Fail unless what the source gives is what the network makes of the same variants, drawn here by hand."""
    job, backbone = source._job, source._job.spec.build()
    rows = job.train[:4]
    digests = job.manifest.digests(rows)
    variants = sum(kept.variant is not None for kept, _ in source.wanted())
    for epoch in range(1, variants + 1):
        with closing(source.batches([rows], epoch)) as stream:
            found = torch.stack([sample.windows[0]["x"] for sample in next(stream)[1]])
        expected = []
        for sample, digest in zip(job.manifest.samples(rows), digests, strict=True):
            generator = np.random.default_rng([seed, epoch - 1, int(digest, 16)])
            picture = job.loader.augment(job.loader.decode(sample.source), generator)
            expected.append(backbone.prepare(picture).windows[0])
        with torch.inference_mode():
            state = backbone(backbone.collate(expected), 0, source.start)
        tolerance = 1e-4 if source.precision == "float32" else 0.1
        torch.testing.assert_close(found, state["x"].contiguous(), atol=tolerance, rtol=tolerance)


def test_no_two_variants_share_a_space(stored: Lab) -> None:
    spaces = [
        kept.space
        for seed in range(3)
        for kept, _ in states(stored, seed=seed, views=4).wanted()
        if kept.variant is not None
    ]
    spaces.append(states(stored).wanted()[0][0].space)
    assert len(set(spaces)) == len(spaces) == 13


def test_an_identity_without_augmentation_is_what_it_was(stored: Lab) -> None:
    identity = stored.registry.backbone(str(stored.root / "weights"), "image").build().identity
    varied = replace(identity, augmentation={"seed": 0})
    assert varied.fingerprint != identity.fingerprint == identity.network == varied.network


def split_of(lab: Lab) -> dict[str, str]:
    workspace = Workspace(lab.root, lab.root / lab.store, lab.root / "cache")
    manifest = Manifest.load(workspace.manifest, workspace.root)
    return dict(zip(manifest.table["id"].to_pylist(), manifest.table["split"].to_pylist(), strict=True))
