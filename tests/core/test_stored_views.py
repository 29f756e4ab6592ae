"""Fine-tuning from stored states ends as it does from raw samples, with augmented variants and without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chains import Chain, Pooled, Steps, built
from jobs import job_of, manifest_of, write_maps
from torch import nn

from tl_core.errors import UserError
from tl_core.extraction import NotFinite, fill
from tl_core.manifest import Manifest
from tl_core.registry import load_registry
from tl_core.store import StoreFull
from tl_core.training import Fitted, Job, fit
from tl_core.training import stored as stored_module
from tl_core.training.plan import Plan
from tl_core.training.sources import RawSource, source_of
from tl_core.types import Backbone, BackboneSpec, Identity


def normed() -> Chain:
    """Batch-norm before the cut and behind it; no bias before one, whose gradient is noise that Adam makes steps of."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        segments: list[tuple[str, nn.Module]] = [
            ("stem", Steps(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())),
            ("deep", Steps(nn.Conv2d(8, 12, 3, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.Dropout(0.2))),
            ("pool", Pooled()),
        ]
        return built(Chain(segments, 12, Identity("0" * 64, {}, "normed")))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_maps(tmp_path / "data")


def fits(job: Job) -> dict[str, Fitted]:
    """By where its batches come from."""
    return {cache: fit(job.tuned(cache=cache)) for cache in ("never", "always")}


def alike(found: dict[str, Fitted], tolerance: float = 1e-4) -> None:
    """Fail unless both were trained from where they should, and came to the same."""
    raw, stored = found["never"], found["always"]
    assert raw.facts["finetune"]["cut"] is None
    assert stored.facts["finetune"]["cut"] is not None
    assert raw.facts["finetune"]["best_epoch"] == stored.facts["finetune"]["best_epoch"]
    np.testing.assert_allclose(stored.said, raw.said, atol=tolerance)
    np.testing.assert_allclose(stored.said_seen, raw.said_seen, atol=tolerance)
    assert raw.backbone is not None
    assert stored.backbone is not None
    ours, theirs = stored.backbone.state_dict(), raw.backbone.state_dict()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name].float(), value.float(), atol=tolerance, rtol=0.01, msg=name)
    for one, other in zip(raw.facts["finetune"]["history"], stored.facts["finetune"]["history"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=tolerance)


def taller() -> Chain:
    """The same with a frozen segment below."""
    low = Steps(nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3))
    whole = normed()
    with torch.random.fork_rng():
        torch.manual_seed(4)
        nn.init.normal_(low[0].weight)
    return built(Chain([("low", low), *whole.segments.items()], 12, Identity("1" * 64, {}, "taller")))


@pytest.mark.parametrize(
    ("build", "tune"),
    [
        (normed, {"train_from": 1, "augment": False}),
        (normed, {"train_from": 1, "views": 2}),
        (normed, {"train_from": 1, "views": 3, "strategy": "lp_ft", "ema": 0.9}),
        (normed, {"train_from": 1, "views": 1, "update": "lora"}),
        (taller, {"train_from": 2, "views": 1, "strategy": "gradual"}),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_the_product_comes_to_the_same(
    manifest: Manifest, tmp_path: Path, build: Callable[[], Backbone], tune: dict[str, Any]
) -> None:
    alike(fits(job_of(manifest, tmp_path, backbone=build, lr=1e-3, head_lr=1e-2, **tune)))


def test_half_precision_comes_close(manifest: Manifest, tmp_path: Path) -> None:
    job = job_of(
        manifest, tmp_path, backbone=normed, precision="bfloat16", train_from=1, views=2, lr=1e-3, head_lr=1e-2
    )
    found = fits(job)
    np.testing.assert_allclose(found["always"].said, found["never"].said, atol=0.05)


def test_two_runs_from_stored_states_give_the_same_bytes(manifest: Manifest, tmp_path: Path) -> None:
    runs = []
    for name in ("one", "other"):
        job = job_of(manifest, tmp_path / name, backbone=normed, train_from=1, views=2, cache="always")
        fitted = fit(job)
        assert fitted.backbone is not None
        runs.append({key: value.numpy().tobytes() for key, value in fitted.backbone.state_dict().items()})
    assert runs[0] == runs[1]


# a store that does not take the states


def failing(error: Exception, after: int) -> Callable[..., Any]:
    calls = 0

    def instead(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise error
        return fill(*arguments, **options)

    return instead


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (NotFinite("features of a, b are not finite"), "are not finite in float32 (tune.precision is float32)"),
        (StoreFull(Path("store"), 1, 2), "the disk became full while states before deep were stored"),
    ],
    ids=["not finite", "disk full"],
)
def test_auto_goes_on_without_states_that_the_store_does_not_take(
    manifest: Manifest, tmp_path: Path, monkeypatch: Any, error: UserError, why: str
) -> None:
    monkeypatch.setattr("tl_core.training.sources.remaining_work", lambda *rest: 0.1)
    monkeypatch.setattr(stored_module, "fill", failing(error, after=1))
    job, plan = job_of(manifest, tmp_path, views=2), Plan(1, (1,), "all", "zeros", False)
    source, facts = source_of(job, normed(), plan)
    assert isinstance(source, RawSource)
    assert facts.cut is None
    assert facts.why.endswith(why)
    monkeypatch.setattr(stored_module, "fill", failing(error, after=0))
    with pytest.raises(UserError):
        source_of(job.tuned(cache="always"), normed(), plan)


# real networks


def real_job(root: Path, modality: str, spec: BackboneSpec, manifest: Manifest, **tune: Any) -> Job:
    registry = load_registry([(f"tl_{modality}", pytest.importorskip(f"tl_{modality}"))])
    job = job_of(manifest, root, loader=registry.loader(modality), backbone=spec.build, **tune)
    return job.replace(spec=spec, head_spec=registry.head(modality, "multiclass", "linear"))


def split(count: int) -> list[str]:
    return ["train" if i % 3 else "val" for i in range(count)]


def test_text_starter(tmp_path: Path) -> None:
    texts = [
        f"{'please refund my order' if i % 2 else 'where is the station'} {'and do it now ' * (i % 9)}{i}"
        for i in range(24)
    ]
    files = written(tmp_path, [(f"{i:02}.txt", text.encode()) for i, text in enumerate(texts)])
    manifest = manifest_of(files, split(24), ["a", "b"] * 12, "text")
    registry = load_registry([("tl_text", pytest.importorskip("tl_text"))])
    spec = registry.backbone("all-minilm-l6-v2-first3", "text")
    job = real_job(tmp_path, "text", spec, manifest, epochs=2, train_from=1)
    alike(fits(job), tolerance=1e-3)


def test_image_starter(tmp_path: Path) -> None:
    from io import BytesIO

    from PIL import Image

    rng = np.random.default_rng(0)
    pictures = []
    for i in range(18):
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        coarse[:, :, i % 2] //= 3
        buffer = BytesIO()
        Image.fromarray(coarse).resize((160, 120)).save(buffer, "JPEG")
        pictures.append((f"{i:02}.jpg", buffer.getvalue()))
    manifest = manifest_of(written(tmp_path, pictures), split(18), ["a", "b"] * 9, "image")
    registry = load_registry([("tl_image", pytest.importorskip("tl_image"))])
    spec = registry.backbone("starter-image", "image")
    job = real_job(tmp_path, "image", spec, manifest, epochs=2, train_from=2, views=2)
    alike(fits(job), tolerance=1e-3)


def written(folder: Path, contents: Sequence[tuple[str, bytes]]) -> list[Path]:
    root = folder / "samples"
    root.mkdir()
    for name, data in contents:
        (root / name).write_bytes(data)
    return [root / name for name, _ in contents]
