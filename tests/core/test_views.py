"""Views of a backbone: named, built, computed by every engine, kept, fine-tuned, bundled and taken along."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from engine_nets import Block, Mean, Net, Part, Patches, Tokens, images, texts

from tl_core.bundle import ModelBundle, backbone_facts
from tl_core.config import ExtractConfig, validate
from tl_core.engines import TorchEngine
from tl_core.errors import UserError
from tl_core.extraction import boundaries, extract, features, space_of
from tl_core.manifest import Manifest
from tl_core.names import split_view
from tl_core.registry import Registry
from tl_core.steps import evaluate, known, select, tune, version
from tl_core.steps import extract as extract_step
from tl_core.steps.backbone import Lazy
from tl_core.steps.entrants import Entered
from tl_core.steps.finalist_views import views_of_finalists
from tl_core.steps.known import key_of
from tl_core.store import FeatureStore
from tl_core.testing import assert_engines_agree, assert_views
from tl_core.types import Backbone, BackboneSpec, State
from tl_core.views import AllViews, all_views, at_view, slices, views

NAME = "gaussian-derivatives"


class Shown(Net):
    """A net of the engines' tests with an example."""

    def __init__(self, segments: Sequence[tuple[str, torch.nn.Module]], seed: int, ragged: bool = False) -> None:
        super().__init__(segments, 32, f"net {seed}", ragged)

    def example(self) -> State | None:
        batch = texts(1) if self.ragged else images(1)
        return {key: tensor[0] for key, tensor in batch.items()}


class Unlike(torch.nn.Module):
    """What can't be pooled: five axes, from and to tokens."""

    def forward(self, state: State) -> State:
        return {**state, "x": state["x"][..., None, None]}


class Back(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, state: State) -> State:
        x = state["x"]
        return {**state, "x": self.weight * (x[..., 0, 0] if x.ndim == 5 else x)}


def build(kind: str, spec: BackboneSpec, seed: int | None) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(100 if seed is None else seed)
        if kind == "text":
            segments = [("embeddings", Tokens()), ("layer_0", Block()), ("layer_1", Block()), ("pool", Mean())]
            return Shown(segments, seed or 100, ragged=True)
        if kind == "image":
            segments = [("embed", Patches()), ("block0", Block()), ("mean", Block()), ("pool", Mean())]
            return Shown(segments, seed or 100)
        if kind == "odd":
            odd = Part(torch.nn.Linear(32, 32), torch.nn.Unflatten(-1, (32, 1, 1)))
            return Shown([("embed", Patches()), ("odd", odd), ("back", Back()), ("pool", Mean())], seed or 100)
        return Net([("embed", Patches()), ("pool", Mean())], 32, "no example")


def spec(kind: str) -> BackboneSpec:
    return BackboneSpec(
        kind, "nets", "package", "torch", partial(build, kind), flops=1000, params=5, feature_dim=32, revision="r1",
        licence="MIT", presets=("cpu/fast",),
    )  # fmt: skip


def rows_of(batch: State) -> list[State]:
    return [{key: tensor[i] for key, tensor in batch.items()} for i in range(len(batch["x"]))]


# names


def test_a_name_is_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert split_view("resnet50#layer3") == ("resnet50", "layer3")
    assert split_view("resnet50") == ("resnet50", None)
    assert split_view("./odd#folder/model#mean") == ("./odd#folder/model", "mean")
    assert [split_view(name)[1] for name in ("#layer3", "resnet50#", "./missing#folder/model")] == [None] * 3
    (tmp_path / "model#layer3").mkdir()
    (tmp_path / "weights#2.pth").touch()
    monkeypatch.chdir(tmp_path)
    assert split_view("./model#layer3") == ("./model#layer3", None)
    assert split_view(f"{tmp_path}/model#layer3#layer1") == (f"{tmp_path}/model#layer3", "layer1")
    assert split_view("resnet50@weights#2.pth") == ("resnet50@weights#2.pth", None)


def test_the_registry_knows_views(timeseries: Registry) -> None:
    found = timeseries.backbone(f"{NAME}#filters", "timeseries")
    assert (found.name, found.view, found.base) == (f"{NAME}#filters", "filters", timeseries.backbones()[0])
    with pytest.raises(UserError, match=r"no timeseries backbone 'gausian-derivative'; did you mean gauss"):
        timeseries.backbone("gausian-derivative#filters", "timeseries")
    with pytest.raises(UserError, match="is a view already, so it has no view 'mean'; name one: gaussian-deriv"):
        timeseries.backbone(f"{NAME}#filters#mean", "timeseries")
    with pytest.raises(UserError, match=rf"^{NAME} has no view 'filter'; did you mean filters\? it has filters; "):
        timeseries.backbone(f"{NAME}#filter", "timeseries").build()


# the networks


def test_what_is_offered() -> None:
    assert views(spec("text").build()) == ["embeddings", "layer_0", "mean"]  # layer_1's mean is the embedding
    assert views(spec("image").build()) == ["embed", "block0"]  # a segment called mean leaves no room for the mean
    assert views(spec("odd").build()) == ["embed", "mean"]  # what has five axes is no vector
    assert views(spec("plain").build()) == []
    with pytest.raises(UserError, match=r"^plain has no view 'embed', nor any other; take plain itself$"):
        at_view(spec("plain"), "embed").build()


def test_the_mean_needs_one_width(timeseries: Registry) -> None:
    wide = [("embed", Patches()), ("wide", Part(torch.nn.Linear(32, 48))), ("narrow", Part(torch.nn.Linear(48, 32)))]
    uneven = dataclasses.replace(spec("image"), builder=lambda *_: Shown([*wide, ("pool", Mean())], 1))
    with pytest.raises(UserError, match=r"no view 'mean', since its segments differ in width \(embed 32, wide 48"):
        at_view(uneven, "mean").build()


@pytest.mark.parametrize("kind", ["text", "image", "odd", "plain"])
def test_every_view_is_the_state_pooled(kind: str) -> None:
    batch = texts() if kind == "text" else images()
    assert_views(spec(kind), rows_of(batch))


def test_a_spec_keeps_its_source_and_nothing_that_a_build_tells() -> None:
    found = at_view(spec("text"), "layer_0")
    assert (found.source, found.location, found.revision, found.licence) == ("package", "torch", "r1", "MIT")
    assert (found.params, found.flops, found.feature_dim, found.presets) == (None, None, None, ())
    seen: list[BackboneSpec] = []

    def watched(spec: BackboneSpec, seed: int | None) -> Backbone:
        seen.append(spec)
        return build("text", spec, seed)

    pinned = dataclasses.replace(at_view(dataclasses.replace(spec("text"), builder=watched), "mean"), revision="r2")
    pinned.build()
    assert [(s.name, s.revision, s.view, s.base) for s in seen] == [("text", "r2", None, None)]


def test_a_view_is_its_own_network_with_its_own_twin() -> None:
    whole, names = spec("text"), ["embeddings", "layer_0", "layer_1", "mean"]
    built = {name: at_view(whole, name).build() for name in names}
    assert len({b.fingerprint for b in (whole.build(), all_views(whole).build(), *built.values())}) == 6
    assert {b.identity.weights for b in built.values()} == {whole.build().identity.weights}
    assert built["layer_0"].segment_names == ("embeddings", "layer_0", "pool")
    assert not any(p.requires_grad for p in built["mean"].parameters())
    later = sum(p.numel() for p in whole.build().segments["layer_1"].parameters())
    assert (
        sum(p.numel() for p in built["layer_0"].parameters())
        == sum(p.numel() for p in whole.build().parameters()) - later
    )
    assert set(built["layer_0"]._base[0].segments) == {"embeddings", "layer_0"}  # the rest is out of the memory
    twin, batch = at_view(whole, "layer_0").build(7), texts()
    with torch.inference_mode():
        by_hand = whole.build(7).pooled(whole.build(7)(dict(batch), stop=2))
        torch.testing.assert_close(twin(dict(batch))["x"], by_hand)
    assert twin.fingerprint != built["layer_0"].fingerprint


@pytest.mark.parametrize("kind", ["text", "image"])
@pytest.mark.parametrize("view", ["first", "all"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_engines_agree(kind: str, view: str, precision: str) -> None:
    found = all_views(spec(kind)) if view == "all" else at_view(spec(kind), views(spec(kind).build())[1])
    batch = texts() if kind == "text" else images()
    for stop in (None, 2):
        assert "openvino" in ",".join(assert_engines_agree(found.build(), rows_of(batch), precision, stop))


def test_the_last_of_all_views_is_the_backbone_itself() -> None:
    for precision in ("float32", "bfloat16"):
        whole, every = spec("text").build(), all_views(spec("text")).build()
        assert isinstance(every, AllViews)
        [(_, expected)] = TorchEngine(whole, None, torch.device("cpu"), precision).run([(0, texts())])
        [(_, found)] = TorchEngine(every, None, torch.device("cpu"), precision).run([(0, texts())])
        place = slices(backbone_facts(all_views(spec("text")), "text", every))["end"]
        assert torch.equal(found["x"][:, place], expected["x"])
        assert place.stop == every.feature_dim


def test_what_all_views_tell_of_each() -> None:
    every = all_views(spec("text")).build()
    assert isinstance(every, AllViews)
    for name, told in every.table.items():
        built = spec("text").build() if name == "end" else at_view(spec("text"), name).build()
        assert told["fingerprint"] == built.fingerprint
        assert told["params"] == sum(p.numel() for p in built.parameters())
        assert told["width"] == built.feature_dim
    shares = [told["share"] for told in every.table.values()]
    assert shares[0] == 0.0  # a table is looked up, nothing is computed
    assert shares[1:] == pytest.approx([0.5, 1.0, 1.0])


# in the store and through the steps


@pytest.fixture(scope="module")
def waves_manifest(timeseries: Registry, tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Path]:
    import conftest
    from tl_core.workspace import Workspace

    folder = tmp_path_factory.mktemp("views")
    config = validate({"data": {"path": str(conftest.write_waves(folder / "waves", per_class=8))}})
    ws = Workspace(folder / "out", folder / "store", folder / "cache")
    version(config, timeseries, ws)
    return Manifest.load(ws.manifest, ws.root), folder


def deep(name: str, seed_of_weights: int = 3) -> BackboneSpec:
    """A chain over the series with three blocks of one width, and a view for each."""
    from tl_timeseries.backbone import WIDTH, FilterBank

    from tl_core import Identity

    def made(spec: BackboneSpec, seed: int | None) -> Backbone:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of_weights if seed is None else seed)
            first = Part(torch.nn.Unflatten(1, (1, WIDTH)), torch.nn.Conv1d(1, 12, 5, padding=2))
            blocks = [(f"block{i}", Part(torch.nn.Conv1d(12, 12, 5, padding=2), torch.nn.Tanh())) for i in range(2)]
            end = Part(torch.nn.AdaptiveMaxPool1d(1), torch.nn.Flatten(1))
            segments = [("stem", first), *blocks, ("pool", end)]
        return FilterBank(segments, 12, Identity(f"{name} {seed}", {"width": WIDTH}, "deep"))

    return BackboneSpec(name, "timeseries", "package", "tl_timeseries", made, flops=1000)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_views_in_the_store(
    waves_manifest: tuple[Manifest, Path], timeseries: Registry, tmp_path: Path, engine: str
) -> None:
    manifest, store = waves_manifest[0], FeatureStore(tmp_path / "store")
    loader, rows = timeseries.loader("timeseries"), waves_manifest[0].rows()
    for view in ("block0", "mean"):
        built = at_view(deep("deep"), view).build()
        done = extract(manifest, rows, loader, built, store, engine=engine, precision="float32")
        assert (done.computed, done.note) == (len(rows), None)
        assert str(done.engine).startswith(engine)
        found = features(manifest, rows, loader, at_view(deep("deep"), view).build, space_of(built, "float32"), store)
        whole = deep("deep").build()
        windows = [whole.prepare(loader.decode(sample.source)).windows[0] for sample in manifest.samples(rows)]
        with torch.inference_mode():
            states = [whole(whole.collate(windows), stop=stop) for stop in (1, 2, 3)]
            pooled = [whole.pooled(state) for state in states]
        expected = pooled[1] if view == "block0" else torch.stack(pooled).mean(dim=0)
        np.testing.assert_allclose(found, expected.numpy(), rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("view", ["block1", "mean"])
def test_an_inner_cut_of_a_view(
    waves_manifest: tuple[Manifest, Path], timeseries: Registry, tmp_path: Path, view: str
) -> None:
    manifest, store = waves_manifest[0], FeatureStore(tmp_path / "store")
    loader, rows = timeseries.loader("timeseries"), waves_manifest[0].rows()[:6]
    built = at_view(deep("deep"), view).build()
    for cut in ("block1", "pool"):
        extract(manifest, rows, loader, built, store, engine="torch", precision="float32", cut=cut)
        kept = boundaries(manifest, rows, space_of(built, "float32", cut), store)
        with torch.inference_mode():
            state = built.collate_boundary([sample.windows[0] for sample in kept])
            found = built(state, start=built.segment(cut))["x"]
            windows = [built.prepare(loader.decode(sample.source)).windows[0] for sample in manifest.samples(rows)]
            torch.testing.assert_close(found, built(built.collate(windows))["x"], rtol=1e-4, atol=1e-5)


def test_the_views_of_finalists(waves_manifest: tuple[Manifest, Path], timeseries: Registry, tmp_path: Path) -> None:
    manifest, store = waves_manifest[0], FeatureStore(tmp_path / "store")
    loader, rows, settings = timeseries.loader("timeseries"), waves_manifest[0].rows("train"), ExtractConfig()

    def broken(spec: BackboneSpec, seed: int | None) -> Backbone:
        raise UserError("no weights here\nget them")

    finalists = [
        Entered("./deep", deep("deep"), flops=1000.0),
        Entered("broken", dataclasses.replace(deep("broken"), builder=broken)),
        Entered(NAME, timeseries.backbones()[0]),
        Entered(f"{NAME}#filters", timeseries.backbone(f"{NAME}#filters", "timeseries")),
    ]
    found = views_of_finalists(finalists, manifest, rows, loader, store, tmp_path / "cache", settings)
    assert [c.request for c in found.candidates] == [
        "./deep#stem", "./deep#block0", "./deep#block1", "./deep#mean", f"{NAME}#filters",
    ]  # fmt: skip
    assert found.candidates[0].spec.name == "deep#stem"
    assert found.dropped == {"broken": "no weights here"}
    assert found.computed == {"deep": len(rows), NAME: len(rows)}
    for candidate in found.candidates:
        built = candidate.spec.build()
        assert candidate.own_facts == {
            "fingerprint": built.fingerprint,
            "feature_dim": built.feature_dim,
            "parameters": sum(p.numel() for p in built.parameters()),
            "revision": None,
            "licence": candidate.spec.licence,
        }
        extract(manifest, rows, loader, built, store, precision="float32")
        alone = features(manifest, rows, loader, candidate.spec.build, space_of(built, "float32"), store)
        np.testing.assert_allclose(candidate.features, alone, rtol=0.05, atol=0.01)
        assert candidate.features.dtype == np.float32
    flops = [c.flops for c in found.candidates]
    assert flops[:3] == sorted(flops[:3])
    assert flops[2:] == [1000.0, 1000.0, None]  # what is not known of the whole is not invented
    again = views_of_finalists(finalists, manifest, rows, loader, store, tmp_path / "cache", settings)
    assert (again.computed, again.reused) == ({"deep": 0, NAME: 0}, 2 * len(rows))
    for a, b in zip(found.candidates, again.candidates, strict=True):
        np.testing.assert_array_equal(a.features, b.features)


def test_a_view_is_remembered_by_its_bases_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "SETTLED_NS", 0)
    monkeypatch.setattr(known, "BEGAN", 2**62)
    package = tmp_path / "code" / "odd_plugin"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    (tmp_path / "weights").mkdir()
    built: list[str] = []

    def made(spec: BackboneSpec, seed: int | None) -> Backbone:
        built.append(spec.name)
        return build("text", spec, seed)

    monkeypatch.setattr(made, "__module__", "odd_plugin")
    base = BackboneSpec("net", "nets", "folder", str(tmp_path / "weights"), made)
    keys = {key_of(s, "net", None) for s in (base, at_view(base, "mean"), at_view(base, "layer_0"), all_views(base))}
    assert len(keys - {None}) == 4
    every = all_views(base)
    first = Lazy(every).facts("net", tmp_path)
    assert Lazy(every).facts("net", tmp_path) == first
    assert built == ["net"]
    assert slices(first)["end"].stop == first["feature_dim"]
    (package / "__init__.py").write_text("# other code")
    Lazy(every).facts("net", tmp_path)
    assert built == ["net", "net"]
    sys.modules.pop("odd_plugin", None)


@pytest.mark.parametrize("strategy", ["probe", "finetune"])
def test_the_whole_way_and_a_moved_model(timeseries: Registry, waves: Path, tmp_path: Path, strategy: str) -> None:
    from tl_core.workspace import Workspace

    config = validate(
        {
            "data": {"path": str(waves)},
            "select": {"backbones": [f"{NAME}#filters"]},
            "tune": {"strategy": strategy, "epochs": 1},
        }
    )
    ws = Workspace(tmp_path / "out", tmp_path / "store", tmp_path / "cache")
    version(config, timeseries, ws)
    for step in (select, extract_step, tune, evaluate):
        step(config, timeseries, ws)
    receipt = json.loads(ws.receipt.read_text())
    assert receipt["backbone"]["segments"] == ["filters", "pool"]
    assert (receipt["backbone"]["view"], receipt["backbone"]["feature_dim"]) == ("filters", 12)
    assert receipt["random"]["fingerprint"] == timeseries.backbone(f"{NAME}#filters", "timeseries").build(0).fingerprint
    assert json.loads(ws.metrics.read_text())["accuracy"] > 0.8
    moved = tmp_path / "elsewhere"
    shutil.move(ws.model, moved)
    facts = json.loads((moved / "bundle.json").read_text())
    assert facts["trained_segments"] == (["filters", "pool"] if strategy == "finetune" else [])
    rows = pq.read_table(ws.step("evaluate") / "predictions.parquet").to_pylist()
    sources = [waves / row["id"] for row in rows]
    for named in (None, NAME, f"{NAME}#filters"):  # the view is the bundle's own, whatever weights it is shown
        bundle = ModelBundle.load(moved, timeseries, named)
        assert [p.label for p in bundle.predict(sources)] == [row["predicted"] for row in rows]
    facts["backbone"].update(view=None)
    (moved / "bundle.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="the model takes all of it: give the backbone without #filters"):
        ModelBundle.load(moved, timeseries, f"{NAME}#filters")


def test_paths_keep_their_view(timeseries: Registry, tmp_path: Path) -> None:
    from tl_core.steps.backbone import located
    from tl_core.steps.select_step import candidates

    for name in (NAME, "model", "odd#folder"):
        (tmp_path / name).mkdir()
    named: dict[str, Any] = {
        f"{NAME}#filters": f"{NAME}#filters",  # the catalogue's, not the folder of that name
        "model#mean": "./model#mean",
        str(tmp_path / "model#mean"): "./model#mean",
        "odd#folder": "./odd#folder",
        "odd#folder#mean": "./odd#folder#mean",
    }
    config = validate({"select": {"backbones": list(named)}})
    assert candidates(config, timeseries, "timeseries", tmp_path) == list(dict.fromkeys(named.values()))
    assert split_view(located("./odd#folder", tmp_path)) == (str(tmp_path / "odd#folder"), None)
    assert split_view(located("./odd#folder#mean", tmp_path)) == (str(tmp_path / "odd#folder"), "mean")
