"""select: which backbone, ranked on a stratified sample of the training rows."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tl_core.config import RunConfig
from tl_core.errors import UserError
from tl_core.extraction import END, features, fill
from tl_core.manifest import Manifest
from tl_core.registry import Registry
from tl_core.selection import Candidate, cross_validated_probe, logme, rank, stratified_sample
from tl_core.steps.backbone import Lazy, located
from tl_core.steps.record import recorded
from tl_core.store import FeatureStore, Space
from tl_core.types import BackboneSpec, Loader
from tl_core.weights import weights_here
from tl_core.workspace import Workspace, write_json

FORMAT_VERSION = 1


def select(config: RunConfig, registry: Registry, workspace: Workspace) -> dict[str, Any]:
    """Rank the candidates into artifacts/select/ranking.json and name the chosen one.

    A candidate that can't be had drops out with its reason; UserError where none is left, or the only one fails.
    """
    with recorded(workspace, "select") as results:
        manifest = Manifest.load(workspace.manifest, workspace.root)
        requests = candidates(config, registry, manifest.modality, workspace.root)
        specs = _distinct(
            [(request, registry.backbone(located(request, workspace.root), manifest.modality)) for request in requests]
        )
        rows = stratified_sample(manifest, config.select.sample, config.seed)
        race = _Race(config, manifest, registry.loader(manifest.modality), workspace, rows)
        tried = [race.enter(spec, request, alone=len(specs) == 1) for request, spec in specs]
        ranked = rank(tried)
        best = ranked[0]
        if best.status != "ranked":
            reasons = "\n".join(f"  {c.name}: {c.reason}" for c in ranked)
            here = trial_backbones(registry, manifest.modality, [spec for _, spec in specs])
            raise UserError(
                f"no backbone could be used:\n{reasons}\ngive weights that are here: --backbone FOLDER"
                + (f"\nor, for a trial without network: --backbone {' or '.join(here)}" if here else "")
            )
        chosen = next(request for request, spec in specs if spec.name == best.name)
        why = "the only candidate" if len(specs) == 1 else "first in the ranking"
        write_json(
            workspace.ranking,
            {
                "format": FORMAT_VERSION,
                "chosen": best.name,
                "request": chosen,
                "why": why,
                "sample_rows": len(rows),
                "candidates": [asdict(c) for c in ranked],
            },
        )
        results.update(
            chosen=best.name,
            why=why,
            candidates=[
                {"name": c.name, "status": c.status, "probe": c.probe, "reason": c.reason}
                | {"computed": race.computed.get(c.name, 0)}
                for c in ranked
            ],
            candidate_seconds=race.seconds,
            computed=sum(race.computed.values()),
            reused=race.reused,
        )
    return results


def candidates(config: RunConfig, registry: Registry, modality: str, root: Path) -> list[str]:
    """The names that compete: the user's (folders as paths that hold later), else the plugins' defaults."""
    if config.select.backbones:
        known = {spec.name for spec in registry.backbones(modality)}  # a folder of the same name is ./NAME
        named = [name if name in known else _located(name, root) for name in config.select.backbones]
        return list(dict.fromkeys(named))
    names = [spec.name for spec in registry.backbones(modality) if spec.default]
    if not names:
        raise UserError(f"no default backbone for {modality}; name one: --backbone NAME or --backbone FOLDER")
    return names


def trial_backbones(registry: Registry, modality: str, tried: Sequence[BackboneSpec]) -> list[str]:
    """Names in the catalogue whose weights are on this machine, where some of those tried have none here."""
    names = {spec.name for spec in tried}
    if all(weights_here(spec) for spec in tried):
        return []
    return [spec.name for spec in registry.backbones(modality) if spec.name not in names and weights_here(spec)]


def _located(name: str, root: Path) -> str:
    """A path as it can be found again: relative to the project where it lies inside, absolute otherwise."""
    path = Path(name).expanduser()
    for found in (root / path, path):
        if found.exists():
            full = found.resolve()
            inside = full.is_relative_to(root.resolve())
            return f"./{full.relative_to(root.resolve()).as_posix()}" if inside else str(full)
    return name


def _distinct(specs: list[tuple[str, BackboneSpec]]) -> list[tuple[str, BackboneSpec]]:
    """Folders of one name keep their whole path as name, so that a ranking names each candidate once."""
    names = Counter(spec.name for _, spec in specs)
    return [(request, replace(spec, name=request) if names[spec.name] > 1 else spec) for request, spec in specs]


class _Race:
    """Candidates measured one after the other on the same rows; times are kept apart from the scores."""

    def __init__(
        self, config: RunConfig, manifest: Manifest, loader: Loader, workspace: Workspace, rows: np.ndarray
    ) -> None:
        self.config, self.manifest, self.loader, self.rows = config, manifest, loader, rows
        self.store, self.cache = FeatureStore(workspace.store), workspace.cache
        self.seconds: dict[str, float] = {}
        self.computed: dict[str, int] = {}
        self.reused = 0

    def enter(self, spec: BackboneSpec, request: str, *, alone: bool) -> Candidate:
        """A candidate's scores, or why it dropped out; where it runs alone its failure is the run's."""
        started = time.perf_counter()
        try:
            return self._measure(spec, request)
        except (UserError, RuntimeError, MemoryError) as error:
            if alone:
                raise
            return Candidate.dropped(spec, str(error).splitlines()[0] if str(error) else type(error).__name__)
        finally:
            self.seconds[spec.name] = round(time.perf_counter() - started, 3)

    def _measure(self, spec: BackboneSpec, request: str) -> Candidate:
        manifest, settings, targets = self.manifest, self.config.extract, self.manifest.targets
        lazy = Lazy(spec)
        facts = lazy.facts(request, self.cache)
        got = fill(
            manifest, self.rows, self.loader, facts["fingerprint"], lazy, self.store,
            device=settings.device, precision=settings.precision, engine=settings.engine, label=f"rank {spec.name}",
            expected=len(manifest.rows()),
        )  # fmt: skip
        self.computed[spec.name] = got.computed
        self.reused += got.reused
        found = features(
            manifest, self.rows, self.loader, lazy, Space(facts["fingerprint"], END, got.precision), self.store,
            device=settings.device, engine=settings.engine,
        )  # fmt: skip
        x = torch.from_numpy(found)
        y = torch.from_numpy(manifest.target_array(self.rows))
        probe = cross_validated_probe(
            x, y, targets.task, targets.outputs, self.config.select.folds, self.config.seed, manifest.groups(self.rows),
            confidence=self.config.evaluate.confidence,
        )  # fmt: skip
        # a sample of a nearly constant value may hold nothing that LogME could explain
        evidence = logme(x, y, targets.task) if bool((y != y[:1]).any()) else None
        return Candidate.ranked(spec, facts, logme=evidence, probe=probe)
