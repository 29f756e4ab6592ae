from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import fake_bytes
import numpy as np
import pytest
import torch
from fake_bytes import DIM, WIDTH, BytesLoader, FakeBackbone, FakeManifest, run, stored, write_files
from torch import Tensor, nn

from tl_core.errors import UserError
from tl_core.extraction import (
    collate_samples,
    embed,
    features,
    pool_windows,
    resolve_device,
    space_of,
)
from tl_core.extraction import rows as rows_module
from tl_core.store import FeatureStore, StoreFull
from tl_core.types import Backbone, Prepared, Source, State

if TYPE_CHECKING:
    from tl_core.manifest import Manifest


@pytest.fixture
def manifest(tmp_path: Path) -> FakeManifest:
    return write_files(tmp_path / "data")


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "store")


def by_hand(data: bytes) -> Tensor:
    """What the backbone gives for one sample, window by window without padding, mean over windows."""
    backbone = FakeBackbone().eval()
    outputs = [backbone(backbone.collate([window]))["x"][0] for window in backbone.prepare(data).windows]
    return torch.stack(outputs).mean(0)


@pytest.mark.parametrize(("precision", "tolerance", "dtype"), [("float32", 1e-6, "f4"), ("bfloat16", 2e-2, "f2")])
def test_rows_are_the_mean_over_windows(
    manifest: FakeManifest, store: FeatureStore, precision: str, tolerance: float, dtype: str
) -> None:
    done = run(manifest, store, FakeBackbone().train(), precision=precision)
    assert (done.computed, done.reused, done.precision) == (40, 0, precision)
    assert done.engine == f"torch-{torch.__version__.split('+')[0]}-cpu"
    rows = stored(manifest, store, precision)
    assert rows.dtype == np.dtype(dtype)
    for name, row in zip(manifest.names, rows):
        expected = by_hand((manifest.root / name).read_bytes())
        torch.testing.assert_close(torch.from_numpy(row).float(), expected, atol=tolerance, rtol=0)


def test_forward_shapes_depend_on_the_bucket_alone(manifest: FakeManifest, store: FeatureStore) -> None:
    for rows in (np.arange(1), np.arange(7), np.arange(40)):
        backbone = FakeBackbone()
        run(manifest, store, backbone, rows=rows)
        _, *batches = backbone.shapes  # the engine is shown one before it computes anything
        assert set(batches) <= {(4, 2), (4, 4), (3, 6)}


# what must miss: each ingredient of the key in turn


@pytest.mark.parametrize(
    "changed",
    [FakeBackbone(seed=1), FakeBackbone(weights="v"), FakeBackbone(preprocessing=2)],
    ids=["seed", "weights", "preprocessing"],
)
def test_another_backbone_misses(manifest: FakeManifest, store: FeatureStore, changed: Backbone) -> None:
    run(manifest, store)
    assert run(manifest, store, changed).computed == 40
    assert run(manifest, store).reused == 40


def test_another_precision_misses(manifest: FakeManifest, store: FeatureStore) -> None:
    run(manifest, store)
    assert run(manifest, store, precision="bfloat16").computed == 40


def test_another_cut_misses(manifest: FakeManifest, store: FeatureStore) -> None:
    run(manifest, store)
    other = replace(space_of(FakeBackbone(), "float32"), cut="pool")
    assert not store.present(other, manifest.digests(np.arange(40))).any()


def test_other_bytes_miss(manifest: FakeManifest, store: FeatureStore) -> None:
    run(manifest, store)
    path = manifest.root / manifest.names[3]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    loader = BytesLoader()
    done = run(FakeManifest(manifest.root, manifest.names), store, loader=loader)
    assert (done.computed, done.audited) == (1, 2)
    assert path.name in loader.decoded
    assert len(loader.decoded) <= 4  # with the two that are audited, and the first one, which the engine is chosen by


# what must hit


def test_touch_copy_rename_and_order_hit(manifest: FakeManifest, store: FeatureStore) -> None:
    run(manifest, store)
    before = stored(manifest, store)
    for name in manifest.names:
        os.utime(manifest.root / name, (1, 1))
    shutil.copy(manifest.root / manifest.names[0], manifest.root / "copy.bin")
    (manifest.root / manifest.names[1]).rename(manifest.root / "renamed.bin")
    changed = FakeManifest(manifest.root, ["renamed.bin", "copy.bin", *reversed(manifest.names[2:])])
    loader = BytesLoader()
    assert run(changed, store, loader=loader).reused == 40
    assert loader.decoded == []
    np.testing.assert_array_equal(stored(changed, store), before[[1, 0, *range(39, 1, -1)]])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("seed", range(4))
def test_bits_do_not_depend_on_company(manifest: FakeManifest, tmp_path: Path, precision: str, seed: int) -> None:
    whole = FeatureStore(tmp_path / "whole")
    run(manifest, whole, precision=precision)
    parts = FeatureStore(tmp_path / "parts")
    order = np.random.default_rng(seed).permutation(40)
    for rows in np.split(order, [1, 2, 9, 30]):
        run(manifest, parts, precision=precision, rows=rows)
    assert stored(manifest, parts, precision).tobytes() == stored(manifest, whole, precision).tobytes()


def test_batch_size_is_no_part_of_the_key(manifest: FakeManifest, store: FeatureStore, monkeypatch: Any) -> None:
    run(manifest, store)
    monkeypatch.setattr(FakeBackbone, "batch_size", lambda self, bucket: 7)
    assert run(manifest, store).reused == 40


def test_each_digest_is_computed_once(manifest: FakeManifest, store: FeatureStore) -> None:
    shutil.copy(manifest.root / manifest.names[5], manifest.root / "twin.bin")
    doubled = FakeManifest(manifest.root, [*manifest.names, "twin.bin"])
    loader = BytesLoader()
    done = run(doubled, store, loader=loader, rows=np.array([5, 40, 5, 6]))
    assert (done.computed, done.reused) == (2, 2)
    assert sorted(loader.decoded) == [manifest.names[5], manifest.names[6]]


def test_truncated_samples_are_counted_on_hits_too(manifest: FakeManifest, store: FeatureStore) -> None:
    expected = sum((manifest.root / name).stat().st_size > 5 * WIDTH for name in manifest.names)
    assert expected > 0
    assert run(manifest, store).truncated == expected
    assert run(manifest, store).truncated == expected


def test_nothing_to_do(manifest: FakeManifest, store: FeatureStore) -> None:
    done = run(manifest, store, rows=np.zeros(0, np.int64))
    assert (done.computed, done.reused, done.truncated) == (0, 0, 0)


# features and embed


def test_features_come_from_the_store_alone(manifest: FakeManifest, store: FeatureStore) -> None:
    run(manifest, store, precision="bfloat16")

    def build() -> Backbone:
        raise AssertionError("nothing is missing")

    space = space_of(FakeBackbone(), "bfloat16")
    rows = np.array([3, 1, 3])
    found = features(cast("Manifest", manifest), rows, BytesLoader(), build, space, store)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, stored(manifest, store, "bfloat16")[rows].astype(np.float32))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_features_recompute_what_the_store_lost(manifest: FakeManifest, store: FeatureStore, precision: str) -> None:
    run(manifest, store, precision=precision)
    before = stored(manifest, store, precision)
    (path,) = store.root.rglob("*.rows")
    data = bytearray(path.read_bytes())
    for at in (0, len(data) // 2, len(data) - 1):
        data[at] ^= 4
    path.write_bytes(data)

    space, loader = space_of(FakeBackbone(), precision), BytesLoader()
    args = (cast("Manifest", manifest), np.arange(40), loader)
    with pytest.raises(UserError, match=r"the backbone at hand \(.*\) is not the one that features are asked of"):
        features(*args, lambda: FakeBackbone(seed=1), space, FeatureStore(store.root))
    found = features(*args, FakeBackbone, space, FeatureStore(store.root), device="cpu")
    assert len(loader.decoded) <= 6  # and two that are audited, and the first one, which the engine is chosen by
    assert found.tobytes() == before.astype(np.float32).tobytes()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_embed_gives_the_stores_bits(manifest: FakeManifest, store: FeatureStore, precision: str) -> None:
    run(manifest, store, precision=precision)
    backbone = FakeBackbone()
    prepared = [backbone.prepare((manifest.root / name).read_bytes()) for name in manifest.names]
    found = embed(backbone, prepared[5:20], torch.device("cpu"), precision)
    assert found.numpy().tobytes() == stored(manifest, store, precision)[5:20].astype(np.float32).tobytes()
    assert embed(backbone, [], torch.device("cpu"), precision).shape == (0, DIM)
    assert not found.is_inference()
    nn.Linear(DIM, 2)(found).sum().backward()  # no inference tensor: a head can train on it


def test_collate_and_pool_are_embeds_differentiable_twin(manifest: FakeManifest) -> None:
    backbone = FakeBackbone().eval().requires_grad_(True)
    prepared = [backbone.prepare((manifest.root / name).read_bytes()) for name in manifest.names]
    batches = collate_samples(backbone, prepared)
    assert [bucket for bucket, _, _ in batches] == [2, 4, 6]
    assert sum(len(owners) for _, _, owners in batches) == sum(len(sample.windows) for sample in prepared)
    outputs = torch.cat([backbone(state)["x"] for _, state, _ in batches])
    owners = torch.cat([owner for _, _, owner in batches])
    pooled = pool_windows(outputs, owners, len(prepared))
    torch.testing.assert_close(pooled, embed(FakeBackbone(), prepared, torch.device("cpu"), "float32"))
    pooled.square().sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in backbone.parameters())


# faults


def test_a_sample_without_windows_is_a_fault_of_the_backbone() -> None:
    with pytest.raises(ValueError, match=r"FakeBackbone.prepare\(\) gave a sample without windows"):
        embed(FakeBackbone(), [Prepared(())], torch.device("cpu"), "float32")


def test_files_that_changed_since_they_were_checked(manifest: FakeManifest, store: FeatureStore) -> None:
    path = manifest.root / "020.bin"
    original = path.read_bytes()
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"020\.bin has changed since it was checked \(other bytes\); run again"):
        run(manifest, store)
    path.unlink()
    with pytest.raises(UserError, match=r"020\.bin has changed since it was checked \(.*No such file.*\); run again"):
        run(manifest, store)
    path.write_bytes(b"bad")
    with pytest.raises(UserError, match=r"020\.bin has changed since it was checked \(not my kind of bytes\); run"):
        run(FakeManifest(manifest.root, manifest.names), store)
    path.write_bytes(original)
    assert run(manifest, store).computed > 0
    assert store.verify() == []


def test_features_that_are_not_finite(manifest: FakeManifest, store: FeatureStore) -> None:
    with pytest.raises(UserError, match=r"features of .*\.bin.* are not finite in float32; check the weights"):
        run(manifest, store, FakeBackbone(scale=float("inf")))
    assert not store.present(space_of(FakeBackbone(scale=2), "float32"), manifest.digests(np.arange(40))).any()


def test_an_interrupt_leaves_the_store_whole(manifest: FakeManifest, tmp_path: Path, monkeypatch: Any) -> None:
    whole, store = FeatureStore(tmp_path / "whole"), FeatureStore(tmp_path / "store")
    run(manifest, whole)
    monkeypatch.setattr(rows_module, "FLUSH_ROWS", 5)
    backbone = FakeBackbone()
    collate, left = backbone.collate, 15

    def interrupted(windows: Sequence[State]) -> State:
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        return collate(windows)

    monkeypatch.setattr(backbone, "collate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(manifest, store, backbone)
    assert store.verify() == []
    done = run(manifest, store)
    assert 0 < done.computed < 40
    assert stored(manifest, store).tobytes() == stored(manifest, whole).tobytes()


def test_a_full_disk_says_how_much_is_missing(manifest: FakeManifest, store: FeatureStore, monkeypatch: Any) -> None:
    monkeypatch.setattr(rows_module, "FLUSH_ROWS", 8)
    write = os.write

    def short_of_space(handle: int, data: memoryview) -> int:
        if os.fstat(handle).st_size > 16 * DIM * 4 - 1:
            raise OSError(28, "No space left on device")
        return write(handle, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short_of_space)
        with pytest.raises(StoreFull, match=r"16 rows were stored, 24 are missing; .*store\.path"):
            run(manifest, store)
    assert run(manifest, store).reused == 16


def test_resolve_device() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UserError, match=r"device cuda:99 is not there: torch .* set extract.device to auto or cpu"):
        resolve_device("cuda:99")
    for name in ("tpu", "meta", "cuda:x"):
        with pytest.raises(UserError, match=f"no device '{name}'; extract.device takes"):
            resolve_device(name)


# other processes: this file run as a script extracts slowly


def start(data: Path, store: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, str(data), str(store), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(fake_bytes.__file__).parent)},
    )


def test_kill_at_any_moment(manifest: FakeManifest, tmp_path: Path) -> None:
    whole, store = FeatureStore(tmp_path / "whole"), FeatureStore(tmp_path / "store")
    run(manifest, whole)
    waits, there = random.Random(0), 0
    for _ in range(2):
        process = start(manifest.root, store.root, 0.015)
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        time.sleep(waits.uniform(0.05, 0.3))
        process.kill()
        process.communicate()
        assert store.verify() == []
        there = sum(info.rows for info in store.info())
    done = run(manifest, store)
    assert done.reused == there
    assert stored(manifest, store).tobytes() == stored(manifest, whole).tobytes()


def test_two_processes_at_once(manifest: FakeManifest, tmp_path: Path) -> None:
    whole, store = FeatureStore(tmp_path / "whole"), FeatureStore(tmp_path / "store")
    run(manifest, whole)
    processes = [start(manifest.root, store.root, 0.005) for _ in range(2)]
    computed = 0
    for process in processes:
        lines = process.communicate()[0].splitlines()
        assert lines[0] == "go"
        done = json.loads(lines[1])
        assert sum(done.values()) == 40
        computed += done["computed"]
    assert computed == 40  # each claims what it computes
    assert store.verify() == []
    assert stored(manifest, store).tobytes() == stored(manifest, whole).tobytes()
    assert run(manifest, store).reused == 40


class SlowLoader(BytesLoader):
    def decode(self, source: Source) -> Any:
        time.sleep(float(sys.argv[3]))
        return super().decode(source)


if __name__ == "__main__":
    files = FakeManifest(Path(sys.argv[1]), sorted(path.name for path in Path(sys.argv[1]).iterdir()))
    rows_module.FLUSH_ROWS = 5
    print("go", flush=True)
    result = run(files, FeatureStore(Path(sys.argv[2])), loader=SlowLoader())
    print(json.dumps({"computed": result.computed, "reused": result.reused}))
