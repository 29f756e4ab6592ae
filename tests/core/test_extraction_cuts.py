"""Features at inner cuts, the audit of stored rows, and engines that run out of memory."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from fake_bytes import DIM, BytesLoader, FakeBackbone, FakeManifest, run, write_files

from tl_core.engines import EngineOutOfMemory, TorchEngine
from tl_core.errors import UserError
from tl_core.extraction import boundaries, decoding, fill, precision_of, space_of
from tl_core.extraction.rows import embedding
from tl_core.store import FeatureStore
from tl_core.types import Backbone, State

if TYPE_CHECKING:
    from tl_core.manifest import Manifest

ALL = np.arange(40)


@pytest.fixture
def manifest(tmp_path: Path) -> FakeManifest:
    return write_files(tmp_path / "data")


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "store")


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("cut", ["block", "pool"])
def test_training_can_start_at_any_cut(
    manifest: FakeManifest, store: FeatureStore, cut: str, precision: str, tolerance: float
) -> None:
    assert run(manifest, store, cut=cut, precision=precision).computed == 40
    assert run(manifest, store, cut=cut, precision=precision).reused == 40
    backbone = FakeBackbone().eval()
    samples = boundaries(cast("Manifest", manifest), ALL, space_of(backbone, precision, cut), store)
    for name, sample in zip(manifest.names, samples):
        data = (manifest.root / name).read_bytes()
        windows = backbone.prepare(data).windows
        assert [len(w["x"]) for w in sample.windows] == [len(w["x"]) for w in windows]
        assert sample.truncated == (len(data) > 30)
        outputs: dict[tuple[int, int], State] = {}
        for number, window in enumerate(sample.windows):
            assert window["x"].dtype == torch.float32
            state = backbone(backbone.collate_boundary([window]), start=backbone.segment(cut))
            outputs[backbone.boundary_bucket(window), number] = {"x": state["x"][0]}
        whole = {(0, i): {"x": backbone(backbone.collate([w]))["x"][0]} for i, w in enumerate(windows)}
        torch.testing.assert_close(embedding(outputs), embedding(whole), atol=tolerance, rtol=0)


def test_a_cut_that_is_not_there(manifest: FakeManifest, store: FeatureStore) -> None:
    with pytest.raises(UserError, match=r"no cut 'blok'; did you mean block\? this backbone has block, pool, end"):
        run(manifest, store, cut="blok")


def test_fixed_rows_where_a_backbone_is_not_ragged(tmp_path: Path, store: FeatureStore, monkeypatch: Any) -> None:
    manifest = write_files(tmp_path / "same", count=9)
    monkeypatch.setattr(FakeBackbone, "ragged", False)
    with pytest.raises(ValueError, match="several windows or tensors at pool: set ragged = True"):
        run(manifest, store, cut="pool")


def test_stored_rows_are_audited_before_new_ones_join_them(manifest: FakeManifest, store: FeatureStore) -> None:
    run(manifest, store, rows=ALL[:20])
    done = run(manifest, store, rows=ALL[:30])
    assert (done.computed, done.reused, done.audited) == (10, 20, 2)

    changed = FakeBackbone(seed=1)  # as if a library had begun to compute the same network otherwise
    changed.identity = FakeBackbone().identity
    with pytest.raises(UserError, match=r"stored features are not what torch-.* computes now: those of .*\.bin differ"):
        run(manifest, store, changed)
    assert store.present(space_of(changed, "float32"), manifest.digests(ALL)).sum() == 30


def test_a_damaged_row_that_the_audit_meets_is_computed_again(
    manifest: FakeManifest, store: FeatureStore, monkeypatch: Any
) -> None:
    run(manifest, store, rows=ALL[:20])
    before = store.read(space_of(FakeBackbone(), "float32"), manifest.digests(ALL[:20]))[0]
    (path,) = store.root.rglob("*.rows")
    data = bytearray(path.read_bytes())
    data[0] ^= 4  # of the row that was stored first
    path.write_bytes(data)
    monkeypatch.setattr(sys.modules["tl_core.extraction.extract"], "_some_of", lambda positions: positions)
    done = run(manifest, store, rows=ALL[:30])
    assert (done.computed, done.reused, done.audited) == (11, 19, 19)
    assert store.read(space_of(FakeBackbone(), "float32"), manifest.digests(ALL[:20]))[0].tobytes() == before.tobytes()


def test_rows_that_go_while_they_are_in_use(manifest: FakeManifest, store: FeatureStore, monkeypatch: Any) -> None:
    run(manifest, store)
    space = space_of(FakeBackbone(), "float32")
    monkeypatch.setattr(store, "present", lambda space, digests: np.ones(len(digests), bool))
    shutil.rmtree(space.folder(store.root))
    with pytest.raises(UserError, match=r"40 features have gone from the feature store .* while they were in use"):
        run(manifest, store)


def test_a_file_that_is_replaced_while_it_is_decoded(manifest: FakeManifest, store: FeatureStore) -> None:
    class Late(BytesLoader):
        def decode(self, source: Any) -> Any:
            if source.name == "020.bin":  # after its digest was checked
                source.write_bytes(b"other")
            return super().decode(source)

    with pytest.raises(UserError, match=r"020\.bin has changed since it was checked \(other bytes\); run again"):
        run(manifest, store, loader=Late())
    assert not store.present(space_of(FakeBackbone(), "float32"), manifest.digests(ALL[20:21])).any()


def test_few_large_samples_are_decoded_ahead(manifest: FakeManifest, monkeypatch: Any) -> None:
    sizes: list[int] = []
    real = decoding._prepare
    monkeypatch.setattr(decoding, "_prepare", lambda chunk, *rest: sizes.append(len(chunk)) or real(chunk, *rest))
    samples = [*manifest.samples(ALL)] * 10
    found = [sample for sample, _ in decoding.prepared(samples, BytesLoader(), FakeBackbone())]
    assert found == samples
    assert (sizes[0], max(sizes)) == (1, decoding.CHUNK)
    monkeypatch.setattr(decoding, "CHUNK_BYTES", 1)
    sizes.clear()
    assert len([*decoding.prepared(samples[:40], BytesLoader(), FakeBackbone())]) == sum(sizes)
    assert max(sizes) == 1


def test_nothing_is_built_where_nothing_lacks(manifest: FakeManifest, store: FeatureStore) -> None:
    run(manifest, store)

    def build() -> Backbone:
        raise AssertionError("every feature is there")

    done = fill(
        cast("Manifest", manifest), ALL, BytesLoader(), FakeBackbone().fingerprint, build, store,
        precision="float32", device="cpu",
    )  # fmt: skip
    assert (done.computed, done.reused, done.engine, done.header) == (0, 40, None, None)


def test_a_backbone_that_is_another_than_asked(manifest: FakeManifest, store: FeatureStore) -> None:
    with pytest.raises(UserError, match="is not the one that features are asked of"):
        fill(cast("Manifest", manifest), ALL, BytesLoader(), "0" * 64, FakeBackbone, store, precision="float32")


def test_auto_precision_prefers_what_the_store_holds(manifest: FakeManifest, store: FeatureStore) -> None:
    fingerprint, digests, cpu = FakeBackbone().fingerprint, manifest.digests(ALL), torch.device("cpu")
    for held, rows in (("float32", ALL[:10]), ("bfloat16", ALL[:25])):
        run(manifest, store, precision=held, rows=rows)
        assert precision_of("auto", store, fingerprint, digests, cpu) == held
        assert run(manifest, store, precision="auto", rows=rows).precision == held
    assert precision_of("float32", store, fingerprint, digests, cpu) == "float32"


def test_memory_that_runs_out_halves_the_batches_and_loses_nothing(
    manifest: FakeManifest, tmp_path: Path, monkeypatch: Any
) -> None:
    whole, store = FeatureStore(tmp_path / "whole"), FeatureStore(tmp_path / "store")
    run(manifest, whole)
    sizes: list[int] = []
    real = TorchEngine.run

    def small(self: TorchEngine, batches: Iterable[tuple[Any, State]]) -> Iterator[tuple[Any, State]]:
        def checked() -> Iterator[tuple[Any, State]]:
            for number, (key, state) in enumerate(batches):
                if number > 3 and len(state["x"]) > 2:
                    raise EngineOutOfMemory(len(state["x"]))
                sizes.append(len(state["x"]))
                yield key, state

        return real(self, checked())

    monkeypatch.setattr(TorchEngine, "run", small)
    assert run(manifest, store).computed == 40
    assert max(sizes[8:]) <= 2 < max(sizes)
    found, expected = (s.read(space_of(FakeBackbone(), "float32"), manifest.digests(ALL))[0] for s in (store, whole))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.shape == (40, DIM)
