"""The candidates of a ranking as the race meets them: opened one at a time, weighed, measured, and let go."""

from __future__ import annotations

import gc
import re
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tl_core.config import RunConfig
from tl_core.engines import flops_of
from tl_core.engines.engine import out_of_memory
from tl_core.errors import SampleChanged, UserError
from tl_core.extraction import END, decoded, features, fill, precision_of
from tl_core.manifest import Manifest
from tl_core.pins import pin
from tl_core.selection.crossval import cross_validated_outcomes
from tl_core.selection.outcomes import Outcomes
from tl_core.selection.race import DroppedOut
from tl_core.steps.backbone import Lazy
from tl_core.store import FeatureStore, Space, StoreFull
from tl_core.store.writing import FULL
from tl_core.types import Backbone, BackboneSpec, Loader
from tl_core.views import all_views
from tl_core.workspace import Workspace

COUNTED_ROWS = 8  # texts and sounds differ in length; images don't, and cost one count
_REASON = 300  # characters of a stranger's message

_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")  # of an object in memory: another one in every run


@dataclass
class Entered:
    """A candidate. facts, flops, precision: once it was weighed; rows: of the sample it was measured on last.

    together: the spec of all its views at once where it is judged by these, None where by its embedding; facts: of
    what it is judged by.
    """

    request: str
    spec: BackboneSpec
    together: BackboneSpec | None = None
    facts: Mapping[str, Any] | None = None
    flops: float | None = None
    precision: str = ""
    rows: int = 0
    computed: int = 0
    reused: int = 0
    seconds: float = 0.0
    engine: str | None = None

    @property
    def own_facts(self) -> dict[str, Any]:
        """backbone_facts() of the candidate itself, as far as a ranking tells them."""
        facts = dict(self.facts or {})
        if self.together is not None:
            whole = facts["views"][END]
            facts.update(fingerprint=whole["fingerprint"], feature_dim=whole["width"])
        return facts


class Entrants:
    """What the race asks of the candidates, over manifest and feature store. One backbone is in memory at a time.

    rows: the sample, each round's rows first. Whatever is wrong with a candidate itself makes it drop out: weights
    missing or unreadable, memory short, features that are not finite, any exception of its plugin's code. What would
    hit every candidate is raised as it is: a full disk, samples that have changed, an interrupt; and where there is
    one candidate only, its failure is the run's.
    """

    def __init__(
        self,
        config: RunConfig,
        manifest: Manifest,
        loader: Loader,
        workspace: Workspace,
        rows: np.ndarray,
        specs: Sequence[tuple[str, BackboneSpec]],
        device: torch.device,
    ) -> None:
        self._config, self._manifest, self._loader, self._rows = config, manifest, loader, rows
        self._workspace, self._store, self._device = workspace, FeatureStore(workspace.store), device
        self._alone = len(specs) == 1
        self._open: tuple[str, Lazy] | None = None
        self.of = {spec.name: Entered(request, spec, together(spec, config)) for request, spec in specs}
        self.opening = 0.0  # seconds spent on downloads and weights

    def weigh(self, name: str) -> float | None:
        """FLOPs of one row, None where they can't be counted. Raises DroppedOut."""
        entered = self.of[name]
        with self._timed(entered), self._dropping():
            started = time.perf_counter()
            lazy, cache = self._lazy(name), self._workspace.cache
            if entered.facts is None:
                entered.facts = self._new(lazy.facts(entered.request, cache))
            few = self._rows[:COUNTED_ROWS]
            counted = lazy.flops(entered.request, cache, self._manifest.digests(few), self._count)
            entered.flops = counted or entered.spec.flops
            self.opening += time.perf_counter() - started
        pin(entered.spec, entered.request, entered.facts, self._workspace.root)  # where that fails, it does for all
        return entered.flops

    def measure(self, name: str, rows: int) -> Outcomes:
        """The outcomes of a probe on the sample's first rows; their features stay in the store. Raises DroppedOut."""
        entered = self.of[name]
        with self._timed(entered), self._dropping():
            outcomes = self.outcomes(self._computed(name, rows))
            entered.rows = rows
            return outcomes

    def outcomes(self, features: np.ndarray) -> Outcomes:
        """The outcomes of a probe on features float32 [N, D] of the sample's first rows."""
        x, y, groups = self.learnable(features)
        targets, settings = self._manifest.targets, self._config
        return cross_validated_outcomes(
            x, y, targets.task, targets.outputs, settings.select.folds, settings.seed, groups
        )

    def sample(self, name: str) -> np.ndarray:
        """The manifest's rows that a candidate was measured on last, int64 [N]."""
        return self._rows[: self.of[name].rows]

    def learnable(self, features: np.ndarray) -> tuple[Tensor, Tensor, list[str] | None]:
        """Features float32 [N, D] of the sample's first rows, with their targets and groups."""
        sample = self._rows[: len(features)]
        targets = torch.from_numpy(self._manifest.target_array(sample))
        return torch.from_numpy(features), targets, self._manifest.groups(sample)

    def features(self, name: str) -> tuple[Tensor, Tensor, list[str] | None]:
        """Features float32 [N, D], targets and groups of the rows that a candidate was measured on last."""
        entered = self.of[name]
        with self._timed(entered):
            return self.learnable(self._read(name, entered.rows))

    def close(self) -> None:
        """Let go of the backbone that is open."""
        built = self._open[1].built if self._open else None
        left = None if built is None else weakref.ref(built)
        built = self._open = None
        if left is not None and left() is not None:
            gc.collect()  # a plugin's network may refer to itself
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # the next one's batches are chosen by what is free

    def _computed(self, name: str, rows: int) -> np.ndarray:
        """Features of the sample's first rows, computed as far as the store lacks them."""
        entered, settings = self.of[name], self._config.extract
        assert entered.facts is not None
        fingerprint, everyone = entered.facts["fingerprint"], self._manifest.digests(self._rows)
        # by the whole sample, and once: what this race adds to the store must not change it
        entered.precision = entered.precision or precision_of(
            settings.precision, self._store, fingerprint, everyone, self._device
        )
        got = fill(
            self._manifest, self._rows[:rows], self._loader, fingerprint, self._lazy(name), self._store,
            device=settings.device, precision=entered.precision, engine=settings.engine, label=f"rank {name}",
            # most candidates are never asked for more than the sample
            expected=len(self._manifest.rows() if self._alone else self._rows),
        )  # fmt: skip
        entered.computed += got.computed
        entered.reused = rows - entered.computed
        entered.engine = got.engine or entered.engine
        return self._read(name, rows)

    def _read(self, name: str, rows: int) -> np.ndarray:
        entered, settings, sample = self.of[name], self._config.extract, self._rows[:rows]
        assert entered.facts is not None
        return features(
            self._manifest, sample, self._loader, self._lazy(name),
            Space(entered.facts["fingerprint"], END, entered.precision), self._store,
            device=settings.device, engine=settings.engine,
        )  # fmt: skip

    def _new(self, facts: dict[str, Any]) -> dict[str, Any]:
        """The facts of a network that no other candidate is. Raises DroppedOut."""
        for name, other in self.of.items():
            if other.facts is not None and other.facts["fingerprint"] == facts["fingerprint"]:
                raise DroppedOut(f"the same as {name}: equal weights, network and preprocessing")
        return facts

    def _lazy(self, name: str) -> Lazy:
        """The candidate, not yet built or just built; the one before it is let go first."""
        if self._open is None or self._open[0] != name:
            self.close()
            self._open = name, Lazy(self.of[name].together or self.of[name].spec)
        return self._open[1]

    def _count(self, backbone: Backbone) -> float:
        """FLOPs of a row, the mean over the first of the sample, each window at the width it is computed at."""
        windows = [
            window
            for sample in self._manifest.samples(self._rows[:COUNTED_ROWS])
            for window in backbone.prepare(decoded(sample, self._loader, backbone.need)).windows
        ]
        flops: dict[int, float] = {}
        for window in windows:
            bucket = backbone.bucket(window)
            if bucket not in flops:
                flops[bucket] = flops_of(backbone, len(backbone.segments), backbone.collate([window] * 2))
        return sum(flops[backbone.bucket(window)] for window in windows) / min(COUNTED_ROWS, len(self._rows))

    @contextmanager
    def _timed(self, entered: Entered) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            entered.seconds += time.perf_counter() - started

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        """Turns what is wrong with a candidate into DroppedOut; what is wrong with the run is raised as it is."""
        try:
            yield
        except DroppedOut:
            raise
        except Exception as error:
            if self._alone or hits_all(error):
                raise
            raise DroppedOut(reason(error)) from None


def together(spec: BackboneSpec, config: RunConfig) -> BackboneSpec | None:
    """All views of a candidate at once where it is to be judged by these, None where by its embedding.

    A probe sees the embedding alone, so that is what it is ranked on. Fine-tuning can use whatever any layer knows, and
    a probe on the pooled outputs of all layers foresees it better (Evci et al., Head2Toe, ICML 2022, arXiv:2201.03529).
    """
    return all_views(spec) if not config.tune.may_probe and spec.view is None else None


def reason(error: Exception) -> str:
    """Why a candidate drops out, in one line that is the same in every run."""
    if out_of_memory(error):  # the allocators' own words tell how much was free
        return "out of memory; free some, or choose a smaller backbone"
    text = str(error).strip().partition("\n")[0]
    if not isinstance(error, UserError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return _ADDRESS.sub("0x...", text)[:_REASON] or type(error).__name__


def hits_all(error: Exception) -> bool:
    """Whether every other candidate would meet the same: a full disk, or samples that have changed."""
    full = isinstance(error, OSError) and error.errno in FULL
    return full or isinstance(error, (StoreFull, SampleChanged))
