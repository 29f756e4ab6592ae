"""The contract that every modality plugin keeps, as a test suite to inherit.

    class TestImage(ModalityContract):
        @pytest.fixture
        def plugin(self): ...      # the plugin's module
        @pytest.fixture
        def good(self, tmp_path): ...       # at least three different usable sources
        @pytest.fixture
        def bad(self, tmp_path): ...        # {part of the reason: unusable source}
        @pytest.fixture
        def backbone(self, tmp_path): ...   # a small BackboneSpec

Needs pytest, which tl_core itself does not depend on.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html.parser import HTMLParser
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest
import torch

from tl_core.bundle import backbone_facts
from tl_core.engines import TorchEngine, choose_engine, disagreement
from tl_core.engines.conversion import openvino_version
from tl_core.errors import DecodeError
from tl_core.registry import Registry, load_registry
from tl_core.training.adapters import ADAPTERS, Adapter, inject, injected, merge
from tl_core.types import END, Backbone, BackboneSpec, Loader, Prepared, Source, State, Targets, Task
from tl_core.views import all_views, at_view, slices, views

SEVERITIES = (1, 2, 3, 4, 5)
HEAVY = ("timm", "transformers", "torchaudio", "torchvision", "prefect", "dvc", "sklearn", "matplotlib")


class ModalityContract:
    """What tl relies on: import, loader, backbone chain, fingerprint and heads of one plugin."""

    @pytest.fixture
    def plugin(self) -> ModuleType:
        raise NotImplementedError("the fixture `plugin` gives the plugin's module")

    @pytest.fixture
    def good(self) -> Sequence[Source]:
        raise NotImplementedError("the fixture `good` gives at least three different usable sources")

    @pytest.fixture
    def bad(self) -> Mapping[str, Source]:
        raise NotImplementedError("the fixture `bad` maps a part of the reason to an unusable source")

    @pytest.fixture
    def backbone(self) -> BackboneSpec:
        raise NotImplementedError("the fixture `backbone` gives a small BackboneSpec")

    @pytest.fixture
    def registry(self, plugin: ModuleType) -> Registry:
        return load_registry([(plugin.__name__, plugin)])

    @pytest.fixture
    def loader(self, registry: Registry) -> Loader:
        return registry.loaders()[0]

    @pytest.fixture
    def built(self, backbone: BackboneSpec) -> Backbone:
        return backbone.build()

    @pytest.fixture
    def prepared(self, built: Backbone, loader: Loader, good: Sequence[Source]) -> list[Prepared]:
        return [built.prepare(loader.decode(source)) for source in good]

    # the plugin

    def test_registers_without_error(self, registry: Registry) -> None:
        assert [p.error for p in registry.plugins] == [None]

    def test_import_is_light(self, plugin: ModuleType) -> None:
        code = (
            f"import sys, {plugin.__name__} as p\n"
            "for hook in ('tl_loaders', 'tl_backbones', 'tl_heads'):\n"
            "    getattr(p, hook, list)()\n"
            f"print(','.join(m for m in {HEAVY!r} if m in sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "", "the catalogue must not import heavy libraries"

    def test_catalogue_names_are_unique(self, registry: Registry) -> None:
        names = [(spec.modality, spec.name) for spec in registry.backbones()]
        assert len(names) == len(set(names))

    def test_unknown_backbone_is_not_claimed(self, plugin: ModuleType, loader: Loader) -> None:
        resolve = getattr(plugin, "tl_resolve_backbone", None)
        if resolve is not None:
            assert resolve(name="no-such-backbone-anywhere", modality=loader.modality) == []
            assert resolve(name="no-such-backbone-anywhere", modality="no-such-modality") == []

    # the loader

    def test_good_sources_pass_the_check(self, loader: Loader, good: Sequence[Source]) -> None:
        assert len(good) >= 3
        assert [loader.check(source) for source in good] == [None] * len(good)

    def test_bad_sources_are_named(self, loader: Loader, bad: Mapping[str, Source]) -> None:
        assert bad
        for fragment, source in bad.items():
            reason = loader.check(source)
            assert reason is not None, f"{source!r} passed the check"
            assert fragment in reason
            assert "\n" not in reason

    def test_what_fails_the_check_does_not_decode(self, loader: Loader, bad: Mapping[str, Source]) -> None:
        for source in bad.values():
            with pytest.raises(DecodeError):
                loader.decode(source)

    def test_measures_and_judges_what_decodes(
        self, loader: Loader, backbone: BackboneSpec, good: Sequence[Source], bad: Mapping[str, Source]
    ) -> None:
        facts = [loader.measure(source) for source in good]
        assert facts == [loader.measure(source) for source in good], "measure() must go by the source's bytes alone"
        for values in (list(fact.values()) for fact in facts):
            assert all(isinstance(value, str) or np.isfinite(value) for value in values)
        for source in bad.values():
            with suppress(DecodeError):  # a header may be readable where the rest is not
                loader.measure(source)
        for warning in loader.misfits(backbone, facts):
            assert warning.about
            assert warning.text
            assert warning.remedy

    def test_decoding_repeats(self, loader: Loader, built: Backbone, good: Sequence[Source]) -> None:
        for source in good:
            first, second = (built.prepare(loader.decode(source)) for _ in range(2))
            assert len(first.windows) == len(second.windows)
            for a, b in zip(first.windows, second.windows, strict=True):
                assert_same_state(a, b)

    def test_augmentation_follows_its_generator(self, loader: Loader, built: Backbone, good: Sequence[Source]) -> None:
        def variant(seed: int) -> Prepared:
            return built.prepare(loader.augment(loader.decode(good[0]), np.random.default_rng(seed)))

        for a, b in zip(variant(7).windows, variant(7).windows, strict=True):
            assert_same_state(a, b)

    def test_corruptions_harm_by_degrees(self, loader: Loader, built: Backbone, good: Sequence[Source]) -> None:
        for name, corrupt in loader.corruptions.items():
            apart = np.zeros(len(SEVERITIES))
            for seed, source in enumerate(list(good) * 4):
                decoded, kept = loader.decode(source), loader.decode(source)
                harmed, again = (
                    [corrupt(decoded, severity, np.random.default_rng(seed)) for severity in SEVERITIES] for _ in "ab"
                )
                assert distance(decoded, kept) == 0, f"{name} changes the sample that it is given"
                assert [form(one) for one in harmed] == [form(decoded)] * len(SEVERITIES), name
                assert not any(distance(a, b) for a, b in zip(harmed, again)), f"{name} does not repeat"
                apart += [distance(decoded, one) for one in harmed]
                assert built.prepare(harmed[-1]).windows
            assert np.all(np.diff(apart) >= 0), f"{name} harms less at a higher severity: {apart}"
            assert apart[-1] > apart[0], f"{name} harms as much at every severity"

    def test_plain_features_are_of_one_kind(self, loader: Loader, good: Sequence[Source]) -> None:
        said, again = ([loader.plain(loader.decode(source)) for source in good] for _ in "ab")
        terms = [one for one in said if isinstance(one, Mapping)]
        numbers = [one for one in said if isinstance(one, np.ndarray)]
        assert len({type(one) for one in said}) == 1
        for one, other in zip(said, again):
            assert type(one) is type(other)
            assert one == other if not isinstance(one, np.ndarray) else np.array_equal(one, np.asarray(other))
        assert all(isinstance(term, str) and 0 < n < math.inf for one in terms for term, n in one.items())
        assert len({one.shape for one in numbers}) <= 1
        assert all(one.ndim == 1 and one.dtype == np.float32 and np.isfinite(one).all() for one in numbers)
        assert all(isinstance(key, str) and isinstance(value, str) for key, value in loader.libraries().items())

    def test_renders_self_contained_html(self, loader: Loader, good: Sequence[Source]) -> None:
        for source in good:
            page = _Links()
            page.feed(loader.render(source))
            assert page.elements, "render() gave no element"
            assert page.scripts == 0
            assert all(link.startswith("data:") for link in page.links)

    # the backbone

    def test_builds_frozen_in_eval_mode(self, built: Backbone) -> None:
        assert not built.training
        assert not any(p.requires_grad for p in built.parameters())
        assert len(built.segment_names) == len(set(built.segment_names)) >= 1

    def test_windows_have_no_batch_dimension(self, built: Backbone, prepared: list[Prepared]) -> None:
        for sample in prepared:
            assert sample.windows
            for window in sample.windows:
                state = built.collate([window, window])
                assert state["x"].shape[0] == 2

    def test_shapes_depend_on_the_bucket_alone(self, built: Backbone, prepared: list[Prepared]) -> None:
        shapes: dict[int, set[Any]] = {}
        for sample in prepared:
            for window in sample.windows:
                state = built.collate([window])
                shape = tuple(sorted((key, tuple(value.shape)) for key, value in state.items()))
                shapes.setdefault(built.bucket(window), set()).add(shape)
        assert all(len(found) == 1 for found in shapes.values())

    def test_a_perturbed_batch_keeps_its_form(self, built: Backbone, prepared: list[Prepared]) -> None:
        given = built.collate([prepared[0].windows[0]] * 2)
        kept = {key: value.clone() for key, value in given.items()}
        once, again = (built.perturb(given, np.random.default_rng(3)) for _ in range(2))
        assert_same_state(given, kept)
        assert_same_state(once, again)
        forms = [{key: (v.shape, v.dtype) for key, v in state.items()} for state in (given, once)]
        assert forms[0] == forms[1]

    def test_embedding_shape(self, built: Backbone, prepared: list[Prepared]) -> None:
        out = self._embed(built, prepared[0].windows[0])
        assert out.shape == (built.batch_size(built.bucket(prepared[0].windows[0])), built.feature_dim)
        assert out.dtype == torch.float32
        assert torch.isfinite(out).all()

    def test_samples_differ(self, built: Backbone, prepared: list[Prepared]) -> None:
        rows = [self._embed(built, sample.windows[0])[0] for sample in prepared]
        assert not torch.allclose(rows[0], rows[1])

    def test_whole_equals_every_span(self, built: Backbone, prepared: list[Prepared]) -> None:
        window = prepared[0].windows[0]
        batch = [window] * built.batch_size(built.bucket(window))
        with torch.inference_mode():
            whole = built(built.collate(batch))["x"]
            for cut in range(1, len(built.segment_names)):
                boundary = built(built.collate(batch), stop=cut)
                assert all(isinstance(value, torch.Tensor) for value in boundary.values())
                stored = {key: value.clone() for key, value in boundary.items()}
                torch.testing.assert_close(built(stored, start=cut)["x"], whole, msg=f"cut before segment {cut}")

    def test_the_embedding_alone_is_the_same(self, built: Backbone, prepared: list[Prepared]) -> None:
        batch = built.collate([prepared[0].windows[0]] * 2)
        with torch.inference_mode():
            whole = built(batch)["x"]
            with built.embedding_only():
                alone = built(batch)["x"]
            torch.testing.assert_close(alone, whole, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(built(batch)["x"], whole, rtol=0, atol=0)

    def test_company_does_not_change_a_row(self, built: Backbone, prepared: list[Prepared]) -> None:
        windows = [w for sample in prepared for w in sample.windows]
        mine = windows[0]
        bucket = built.bucket(mine)
        size = built.batch_size(bucket)
        others = [w for w in windows if built.bucket(w) == bucket]
        company = [others[i % len(others)] for i in range(size)]
        company[0] = mine
        with torch.inference_mode():
            alone = built(built.collate([mine] * size))["x"][0]
            among = built(built.collate(company))["x"][0]
        torch.testing.assert_close(alone, among, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    @pytest.mark.parametrize("inner", [False, True], ids=["end", "inner cut"])
    def test_engines_agree(self, built: Backbone, prepared: list[Prepared], precision: str, inner: bool) -> None:
        windows = [window for sample in prepared for window in sample.windows]
        if inner and len(built.segment_names) < 2:
            pytest.skip("one segment, no inner cut")
        stop = len(built.segment_names) // 2 if inner else None
        assert_engines_agree(built, windows, precision, stop)

    def test_fingerprint_repeats_and_follows_the_weights(self, backbone: BackboneSpec, built: Backbone) -> None:
        again, twin, other = backbone.build(), backbone.build(random_seed=0), backbone.build(random_seed=1)
        assert again.fingerprint == built.fingerprint
        assert len({built.fingerprint, twin.fingerprint, other.fingerprint}) == 3

    def test_fingerprint_follows_the_preprocessing(self, built: Backbone) -> None:
        for key in built.identity.preprocessing:
            changed = {**built.identity.preprocessing, key: "something else"}
            identity = dataclasses.replace(built.identity, preprocessing=changed)
            assert identity.fingerprint != built.fingerprint, key

    def test_random_twin_is_the_same_network(self, backbone: BackboneSpec, built: Backbone) -> None:
        twins = [backbone.build(random_seed=3) for _ in range(2)]
        shapes = [{k: v.shape for k, v in net.state_dict().items()} for net in (built, *twins)]
        assert shapes[0] == shapes[1]
        for (name, a), b in zip(twins[0].state_dict().items(), twins[1].state_dict().values(), strict=True):
            assert torch.equal(a, b), f"{name} is not drawn from the seed"

    def test_views(self, backbone: BackboneSpec, prepared: list[Prepared]) -> None:
        assert_views(backbone, [window for sample in prepared for window in sample.windows])

    # the heads

    @pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
    def test_heads_train(self, registry: Registry, loader: Loader, task: Task) -> None:
        targets = Targets(task, ("a", "b", "c") if task != "regression" else ())
        truth = {
            "multiclass": torch.tensor([0, 1, 2, 1]),
            "multilabel": torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]),
            "regression": torch.tensor([0.5, -1.0, 2.0, 0.0]),
        }[task]
        for spec in registry.heads(loader.modality, task):
            head = spec.build(5, targets)
            assert spec.watch in spec.metrics
            logits = head(torch.randn(4, 5, generator=torch.Generator().manual_seed(0)))
            head.loss(logits, truth).backward()  # type: ignore[no-untyped-call]
            assert any(p.grad is not None for p in head.parameters())
            decoded = head.decode(logits.detach())
            assert decoded.shape == ((4,) if task == "regression" else (4, 3))

    def test_preparing_is_quick(self, built: Backbone, loader: Loader, good: Sequence[Source]) -> None:
        started = time.perf_counter()
        built.prepare(loader.decode(good[0]))
        assert time.perf_counter() - started < 10

    @staticmethod
    def _embed(built: Backbone, window: State) -> torch.Tensor:
        with torch.inference_mode():
            out: State = built(built.collate([window] * built.batch_size(built.bucket(window))))
        return out["x"]


def form(decoded: Any) -> Any:
    """What a corrupted sample has in common with the sample: its type, an array's shape and dtype, fields' forms."""
    if isinstance(decoded, np.ndarray):
        return decoded.shape, decoded.dtype
    if dataclasses.is_dataclass(decoded):
        return type(decoded), [form(getattr(decoded, field.name)) for field in dataclasses.fields(decoded)]
    return type(decoded)


def distance(a: Any, b: Any) -> float:
    """How far two decoded samples are apart: 0 where they are equal.

    Of texts the share of their letters that they don't have in common; of arrays the root mean square; of dataclasses
    the sum over fields; of anything else 1.
    """
    if isinstance(a, str) and isinstance(b, str):
        return 1 - difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()
    if isinstance(a, np.ndarray):
        if a.shape != b.shape:
            return math.inf
        return float(np.sqrt(np.mean(np.square(a.astype(np.float64) - b.astype(np.float64)))))
    if dataclasses.is_dataclass(a):
        return sum(distance(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a))
    return float(a != b)


def assert_same_state(a: State, b: State) -> None:
    """Fail unless two states hold the same keys and equal tensors."""
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def assert_views(spec: BackboneSpec, windows: Sequence[State]) -> list[str]:
    """Fail unless every view is the whole chain's state at its place, pooled, whatever the company in the batch.

    windows: those of the first one's bucket are taken. Returns the names of the views.
    """
    whole, every = spec.build(), all_views(spec).build()
    offered, places = views(whole), slices(backbone_facts(all_views(spec), spec.name, every))
    assert list(places) == [*offered, END]
    bucket = whole.bucket(windows[0])
    size, mine = whole.batch_size(bucket), [window for window in windows if whole.bucket(window) == bucket]
    company = [mine[i % len(mine)] for i in range(size)]
    with torch.inference_mode():
        state, pooled = whole.collate(company), {}
        for name, segment in whole.segments.items():
            state = segment(state)
            if name != whole.segment_names[-1] and next(segment.parameters(), None) is not None:
                with suppress(ValueError):  # no vector
                    pooled[name] = whole.pooled(state)
        pooled[END] = state["x"]
        if "mean" in offered:
            pooled["mean"] = torch.stack([rows for name, rows in pooled.items() if name != END]).mean(dim=0)
        together = every(every.collate(company))["x"]
        for name, place in places.items():
            view = whole if name == END else at_view(spec, name).build()
            alone, among = view(view.collate([mine[0]] * size))["x"], view(view.collate(company))["x"]
            assert among.shape == (size, view.feature_dim), name
            assert among.dtype == torch.float32, name
            assert torch.isfinite(among).all(), name
            torch.testing.assert_close(among, pooled[name], rtol=1e-5, atol=1e-6, msg=f"view {name}")
            torch.testing.assert_close(together[:, place], among, rtol=1e-5, atol=1e-6, msg=f"{name} of all views")
            torch.testing.assert_close(alone[0], among[0], rtol=1e-5, atol=1e-6, msg=f"{name} in company")
    return offered


def assert_adapters(spec: BackboneSpec, windows: Sequence[State]) -> int:
    """Fail unless adapters start as nothing, change the embedding once moved, and merge without a trace.

    windows: those of the first one's bucket are taken. Returns how many layers took a LoRA adapter. Skips without peft.
    """
    pytest.importorskip("peft")
    count = 0
    for update in ADAPTERS:
        backbone = spec.build()
        bucket = backbone.bucket(windows[0])
        batch = backbone.collate([window for window in windows if backbone.bucket(window) == bucket])
        segments, names = list(backbone.segments.values()), list(backbone.state_dict())
        with torch.no_grad():
            before = backbone(batch)["x"]
            inject(backbone, 0, cast(Adapter, update), 2, 0)
            torch.testing.assert_close(backbone(batch)["x"], before, rtol=1e-4, atol=1e-4, msg=f"{update} at first")
            added = [parameter for segment in segments for _, parameter in injected(segment)]
            generator = torch.Generator().manual_seed(3)
            for parameter in added:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
            moved = backbone(batch)["x"]
            assert not added or not torch.equal(moved, before), f"{update}: no adapter reaches the embedding"
            merge(segments)
            torch.testing.assert_close(backbone(batch)["x"], moved, rtol=1e-3, atol=1e-3, msg=f"{update}, merged")
        assert list(backbone.state_dict()) == names
        count = max(count, len(added) // 2 if update == "lora" else 0)
    return count


def assert_engines_agree(
    backbone: Backbone, windows: Sequence[State], precision: str, stop: int | None = None
) -> tuple[str, ...]:
    """Fail unless each engine on this CPU gives the rows of torch in float32, within the class's tolerance.

    windows: those of the first one's bucket are taken. Returns the names of the engines that were compared; one that
    does not take the backbone is not among them.
    """
    bucket = backbone.bucket(windows[0])
    mine = [window for window in windows if backbone.bucket(window) == bucket]
    batch = backbone.collate([mine[i % len(mine)] for i in range(backbone.batch_size(bucket))])
    cpu = torch.device("cpu")
    [(_, expected)] = TorchEngine(backbone, stop, cpu, "float32").run([(0, batch)])
    names = []
    for wanted in ("torch", "openvino") if openvino_version() else ("torch",):
        engine, note = choose_engine(
            backbone, engine=wanted, device=cpu, precision=precision, stop=stop, rows=0, folder=None, example=batch
        )
        if note:
            continue
        [(_, found)] = engine.run([(0, batch)])
        assert found.keys() == expected.keys(), engine.name
        for key, tensor in expected.items():
            assert found[key].shape == tensor.shape, f"{engine.name}: {key}"
            for a, b in zip(tensor.float().numpy(), found[key].float().numpy(), strict=True):
                assert disagreement(a.ravel(), b.ravel(), precision) is None, f"{engine.name}: {key}"
        names.append(engine.name)
    return tuple(names)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.elements = 0
        self.scripts = 0
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements += 1
        self.scripts += tag == "script"
        self.links += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "poster")]
