"""Where training's batches come from, and what decides it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chains import maps, tokens
from fake_bytes import BytesLoader, FakeBackbone
from jobs import Maps, PlainMaps, job_of, manifest_of, write_maps
from torch import Tensor, nn

from tl_core.errors import SampleChanged, UserError
from tl_core.extraction import pool_windows
from tl_core.manifest import Manifest
from tl_core.training import cut_cost, sources
from tl_core.training.job import Job
from tl_core.training.plan import Plan
from tl_core.training.sources import RawSource, Source, SourceFacts, source_of
from tl_core.training.stored import StoredSource
from tl_core.types import Backbone, State

DEEP = Plan(3, (3,), "all", "zeros", False)  # of maps(): batch-norm before the cut and behind it


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_maps(tmp_path / "data")


def fitted(source: Source, backbone: Backbone, job: Job, epochs: int = 3) -> tuple[list[float], Tensor]:
    """A plain training run from a source: (losses, logits of the validation rows)."""
    torch.manual_seed(0)
    suffix = nn.ModuleList(list(backbone.segments.values())[DEEP.start :])
    suffix.requires_grad_(True)
    head = nn.Linear(backbone.feature_dim, 2)
    # not Adam: of a bias before batch-norm, whose gradient is noise alone, it would make steps like any others
    optimizer = torch.optim.SGD([*suffix.parameters(), *head.parameters()], lr=0.1, momentum=0.9)
    losses = []
    for epoch in range(1, epochs + 1):
        order = np.random.default_rng([0, epoch]).permutation(job.train)
        with closing(source.batches(np.array_split(order, 3), epoch)) as stream:
            for rows, prepared in stream:
                suffix.train()
                loss = nn.functional.cross_entropy(head(features(source, backbone, prepared)), job.targets(rows))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
    suffix.eval()
    with torch.no_grad(), closing(source.batches([job.val])) as stream:
        return losses, head(features(source, backbone, next(stream)[1]))


def features(source: Source, backbone: Backbone, prepared: list[Any]) -> Tensor:
    outputs, owners = [], []
    for _, state, owner in source.collate(prepared):
        with torch.no_grad():
            state = backbone(state, source.start, DEEP.start)
        outputs.append(backbone(state, DEEP.start)["x"])
        owners.append(owner)
    return pool_windows(torch.cat(outputs), torch.cat(owners), len(prepared))


def both(job: Job, build: Callable[[], Backbone] = maps) -> tuple[tuple[list[float], Tensor], ...]:
    runs = []
    for cache, kind in (("never", RawSource), ("always", StoredSource)):
        backbone = build()
        source, facts = source_of(job.tuned(cache=cache), backbone, DEEP)
        assert isinstance(source, kind), facts
        runs.append(fitted(source, backbone, job))
    return tuple(runs)


@pytest.mark.parametrize("tune", [{"augment": False}, {"views": 1}, {"views": 2}], ids=str)
def test_training_from_stored_states_is_training(manifest: Manifest, tmp_path: Path, tune: dict[str, Any]) -> None:
    raw, stored = both(job_of(manifest, tmp_path, **tune))
    np.testing.assert_allclose(stored[0], raw[0], rtol=1e-5)
    torch.testing.assert_close(stored[1], raw[1], rtol=1e-4, atol=1e-5)


def test_nothing_is_decoded_once_all_is_stored(manifest: Manifest, tmp_path: Path) -> None:
    loader = Maps()
    job = job_of(manifest, tmp_path, loader=loader, cache="always", views=2)
    source, _ = source_of(job, maps(), DEEP)
    before = loader.decoded
    fitted(source, maps(), job)
    assert loader.decoded == before
    again, facts = source_of(job, maps(), DEEP)
    assert loader.decoded - before <= 1  # the one by which the cost is estimated
    assert facts.cut == {"name": "deep", "bytes": (2 * 21 + 10) * 8 * 64 * 4, "rows": 31, "views": 2}
    assert again.start == 3


def test_epochs_take_the_variants_in_turn(manifest: Manifest, tmp_path: Path) -> None:
    job = job_of(manifest, tmp_path, views=2)
    for cache in ("never", "always"):
        source, _ = source_of(job.tuned(cache=cache), maps(), DEEP)
        first, second, third, plain = (drawn(source, job.train, epoch) for epoch in (1, 2, 3, None))
        assert torch.equal(first, third)
        assert not torch.equal(first, second)
        assert not torch.equal(first, plain)
    another, _ = source_of(job_of(manifest, tmp_path, views=2, seed=1), maps(), DEEP)
    assert not torch.equal(drawn(another, job.train, 1), first)


def test_variants_without_end_are_others_in_each_epoch(manifest: Manifest, tmp_path: Path) -> None:
    job = job_of(manifest, tmp_path)
    source, facts = source_of(job, maps(), DEEP)
    assert facts == SourceFacts(
        None, "samples are augmented anew in every epoch (tune.augment is true and tune.views 0)"
    )
    some = [drawn(source, job.train, epoch) for epoch in (1, 2, 3)]
    assert not any(torch.equal(some[i], some[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert torch.equal(some[1], drawn(source, job.train, 2))
    assert torch.equal(some[1][5:9], drawn(source, job.train[5:9], 2))  # whatever the company


def test_a_variant_is_decided_by_the_bytes_and_not_by_the_row(manifest: Manifest, tmp_path: Path) -> None:
    job = job_of(manifest, tmp_path, views=1, cache="never")
    files = [tmp_path / "data" / name for name in manifest.table["id"].to_pylist()][:21]
    files.append(tmp_path / "data" / "new.map")
    shutil.copy(files[4], files[-1])
    moved = manifest_of(files[::-1], ["train"] * 22, ["a", "b"] * 11, "map")
    one, _ = source_of(job, maps(), DEEP)
    other, _ = source_of(job_of(moved, tmp_path, views=1, cache="never"), maps(), DEEP)
    ours, theirs = drawn(one, job.train, 1), drawn(other, np.arange(22), 1)
    assert torch.equal(theirs.flip(0)[:21], ours)
    assert torch.equal(theirs[0], ours[4])


def test_lost_rows_are_computed_again_while_segments_train(manifest: Manifest, tmp_path: Path) -> None:
    job = job_of(manifest, tmp_path, cache="always", views=1)
    backbone = maps()
    source, _ = source_of(job, backbone, DEEP)
    before = drawn(source, job.train, 1)
    shutil.rmtree(job.store.root)
    backbone.segments["deep"].train()
    with torch.no_grad():
        for parameter in backbone.segments["deep"].parameters():
            parameter.add_(1)
    batches = np.array_split(job.train, 3)
    with closing(source.batches(batches, 1)) as stream:
        again = [(rows, prepared) for rows, prepared in stream]
    assert [rows.tolist() for rows, _ in again] == [rows.tolist() for rows in batches]
    after = torch.stack([sample.windows[0]["x"] for _, prepared in again for sample in prepared])
    torch.testing.assert_close(after, before)
    assert backbone.segments["deep"].training


@pytest.mark.parametrize("seen", [None, np.arange(21)], ids=["not foreseen", "foreseen"])
def test_training_rows_can_be_seen_without_augmentation(manifest: Manifest, tmp_path: Path, seen: Any) -> None:
    loader = Maps()
    job = job_of(manifest, tmp_path, loader=loader, cache="always", views=1)
    source, _ = source_of(job, maps(), DEEP, seen)
    before = loader.decoded
    at_cut(source, job.train)
    assert (loader.decoded == before) == (seen is not None)
    raw, _ = source_of(job.tuned(cache="never"), maps(), DEEP)
    torch.testing.assert_close(at_cut(source, job.train), at_cut(raw, job.train))


def test_windows_of_many_lengths(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{i:02}.bin" for i in range(30)]
    for path in files:
        path.write_bytes(rng.bytes(int(rng.integers(1, 40))))
    manifest = manifest_of(files, ["train"] * 20 + ["val"] * 10, ["a", "b"] * 15, "bytes")
    job = job_of(manifest, tmp_path / "project", loader=BytesLoader(), backbone=FakeBackbone)
    plan = Plan(2, (2,), "all", "zeros", False)
    results = []
    for cache in ("never", "always"):
        backbone = FakeBackbone()
        backbone.eval()
        source, facts = source_of(job.tuned(cache=cache), backbone, plan)
        with closing(source.batches(np.array_split(job.train, 3), 1)) as stream:
            prepared = [sample for _, part in stream for sample in part]
        outputs, owners = [], []
        for _, state, owner in source.collate(prepared):
            outputs.append(backbone(state, source.start)["x"])
            owners.append(owner)
        results.append(pool_windows(torch.cat(outputs), torch.cat(owners), len(prepared)))
    assert isinstance(source, StoredSource), facts
    torch.testing.assert_close(*results)


def test_a_sample_that_has_changed(manifest: Manifest, tmp_path: Path) -> None:
    job = job_of(manifest, tmp_path, views=1, cache="always")
    (tmp_path / "data" / "007.map").write_bytes(bytes(3 * 8 * 8 * 4))
    with pytest.raises(SampleChanged, match=r"007\.map has changed since it was checked"):
        source_of(job, maps(), DEEP)


# the decision


def test_what_does_not_pay_back_is_not_stored(manifest: Manifest, tmp_path: Path) -> None:
    job = job_of(manifest, tmp_path, loader=PlainMaps())
    source, facts = source_of(job, maps(), DEEP)
    assert isinstance(source, RawSource)
    assert facts.cut is None
    assert facts.why.startswith("states before deep don't pay back: with them")
    assert facts.why.endswith("of the estimated work remain, for 63.5 kB on the disk")
    assert not job.store.root.exists()


def test_what_pays_back_is_stored(manifest: Manifest, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sources, "row_cost", lambda *rest: cut_cost.RowCost(2048, 8e9, 1e9))
    job = job_of(manifest, tmp_path, loader=PlainMaps(), epochs=10)
    source, facts = source_of(job, maps(), DEEP)
    assert isinstance(source, StoredSource)
    assert facts.why == "training starts from stored states before deep: 30% of the estimated work remain"
    assert source_of(job, maps(), DEEP)[1] == facts  # also where all is stored already
    assert job.store.present(source.wanted()[0][0].space, manifest.digests(manifest.rows())).all()


@pytest.mark.parametrize(("epochs", "variants", "pays"), [(1, 1, False), (2, 1, True), (10, 3, True), (10, 9, False)])
def test_it_pays_back_over_epochs(epochs: int, variants: int, pays: bool) -> None:
    cost = cut_cost.RowCost(stored=400e3, prefix=6e9, suffix=0.2e9)
    work = cut_cost.Work(train=1000, val=200, states=1000 * variants + 200, epochs=epochs)
    share = cut_cost.remaining_work(cost, work, "cpu", "float32")
    assert (share <= cut_cost.WORTH) == pays


def test_a_short_disk(manifest: Manifest, tmp_path: Path, monkeypatch: Any) -> None:
    loader = PlainMaps()
    monkeypatch.setattr(sources, "free_bytes", lambda folder: 10**9)
    monkeypatch.setattr(cut_cost, "remaining_work", lambda *rest: 0.1)
    job = job_of(manifest, tmp_path, loader=loader)
    source, facts = source_of(job, maps(), DEEP)
    assert isinstance(source, RawSource)
    text = (
        "63.5 kB of states before deep are to be stored, and the feature store's disk has not as much to spare "
        "(1.07 GB stay free)"
    )
    text = text.replace("(", r"\(").replace(")", r"\)")
    assert re.fullmatch(text, facts.why), facts.why
    before = loader.decoded
    with pytest.raises(
        UserError, match=rf"^config key 'tune.cache' can't be 'always': {text}; set it to auto or never$"
    ):
        source_of(job.tuned(cache="always"), maps(), DEEP)
    assert loader.decoded == before + 1
    assert not job.store.root.exists()


@pytest.mark.parametrize(
    ("tune", "start", "why"),
    [
        ({}, 3, "samples are augmented anew in every epoch (tune.augment is true and tune.views 0)"),
        ({"augment": False}, 0, "the first segment, stem, is trained (tune.train_from is auto)"),
        ({"augment": False}, 5, "no segment is trained"),
    ],
)
def test_where_states_cannot_be_stored(
    manifest: Manifest, tmp_path: Path, tune: dict[str, Any], start: int, why: str
) -> None:
    plan = Plan(start, (start,), "all", "zeros", False)
    source, facts = source_of(job_of(manifest, tmp_path, **tune), maps(), plan)
    assert isinstance(source, RawSource)
    assert facts == SourceFacts(None, why)
    with pytest.raises(UserError) as error:
        source_of(job_of(manifest, tmp_path, cache="always", **tune), maps(), plan)
    assert str(error.value) == f"config key 'tune.cache' can't be 'always': {why}; set it to auto or never"


def test_mixed_samples_are_mixed_before_the_first_segment(manifest: Manifest, tmp_path: Path) -> None:
    job = job_of(manifest, tmp_path, augment=False, mix="mixup")
    assert source_of(job, maps(), DEEP)[1].why == "mixup mixes the samples, not the states before deep"
    assert source_of(job.tuned(cache="always"), maps(), DEEP)[0].start == 3  # asked for: states are mixed


def test_a_backbone_that_varies_its_batches(manifest: Manifest, tmp_path: Path, monkeypatch: Any) -> None:
    def perturb(self: Backbone, state: State, rng: np.random.Generator) -> State:
        return {"x": state["x"] + 1}

    monkeypatch.setattr(type(maps()), "perturb", perturb)
    job = job_of(manifest, tmp_path, loader=PlainMaps())
    assert source_of(job, maps(), DEEP)[1].why.startswith("samples are augmented anew in every epoch")
    assert "don't pay back" in source_of(job.tuned(augment=False), maps(), DEEP)[1].why


def test_never(manifest: Manifest, tmp_path: Path) -> None:
    source, facts = source_of(job_of(manifest, tmp_path, cache="never", augment=False), maps(), DEEP)
    assert isinstance(source, RawSource)
    assert facts == SourceFacts(None, "tune.cache is never")


@pytest.mark.parametrize(
    ("tune", "text"),
    [
        ({"views": 2}, "the map loader augments nothing, so there are no variants to store; set it to 0"),
        (
            {"views": 2, "augment": False},
            "tune.augment is false, so there are no variants to store; set it to 0, or tune.augment to true",
        ),
    ],
)
def test_views_that_would_do_nothing(manifest: Manifest, tmp_path: Path, tune: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError) as error:
        source_of(job_of(manifest, tmp_path, loader=PlainMaps(), **tune), maps(), DEEP)
    assert str(error.value) == f"config key 'tune.views' can't be 2: {text}"


def test_costs_are_counted() -> None:
    backbone = tokens()
    window = {"x": torch.zeros(5, 8)}
    cost = cut_cost.row_cost(backbone, [backbone.prepare(window["x"])], 1, "bfloat16", torch.device("cpu"))
    assert cost is not None
    assert cost.stored == 5 * 8 * 2
    assert cost.prefix == cost.suffix > 0  # two blocks alike


def test_a_network_that_cannot_be_watched(manifest: Manifest, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sources, "row_cost", lambda *rest: None)
    facts = source_of(job_of(manifest, tmp_path, augment=False), maps(), DEEP)[1]
    assert facts.why == "what the segments before deep compute can't be counted"


def drawn(source: Source, rows: np.ndarray, epoch: int | None) -> Tensor:
    with closing(source.batches([rows], epoch)) as stream:
        return torch.stack([sample.windows[0]["x"] for sample in next(stream)[1]])


def at_cut(source: Source, rows: np.ndarray) -> Tensor:
    with closing(source.batches([rows])) as stream, torch.no_grad():
        ((_, state, _),) = source.collate(next(stream)[1])
        return maps()(state, source.start, DEEP.start)["x"]
