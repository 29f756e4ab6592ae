"""How well the ranking foresees fine-tuning: `tl select` on every set against the truth, beside single scores.

    python -m benchmarks.selection.contest [--data FOLDER] [--only SET ...] [--seeds 0 1 2 3 4]

The truth is benchmarks/results/selection_truth.json (python -m benchmarks.selection.truth). Every ranking seed draws
its own sample and folds; the first one starts from an empty feature store, and its CPU seconds are the cost.
Regret is in points of test accuracy after fine-tuning, means over the truth's seeds; intervals come from resampling
test rows (the same for all candidates) and sets. Results: benchmarks/results/selection.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.features.setting import machine
from benchmarks.selection.results import load_truth, title, write
from benchmarks.selection.setting import CASES, RESULTS, ROOT, Case, manifest_of, spec_of, training_rows
from tl_core import hookimpl
from tl_core.config import RunConfig, validate
from tl_core.extraction import END, extract, features
from tl_core.manifest import Manifest
from tl_core.registry import Registry, load_registry
from tl_core.selection.crossval import cross_validated_outcomes
from tl_core.selection.scores import scores_of
from tl_core.steps.select_step import select
from tl_core.store import FeatureStore, Space
from tl_core.types import Backbone, BackboneSpec
from tl_core.views import all_views, slices
from tl_core.weights import read_json
from tl_core.workspace import Workspace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("TL_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--render", action="store_true", help="only write the tables of rankings that are kept")
    arguments = parser.parse_args()
    path = RESULTS / "selection.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"cases": {}}
    truth = load_truth()
    if not arguments.render:
        kept["machine"] = machine()
        for case in (CASES[name] for name in arguments.only if name in truth):
            kept["cases"][case.dataset] = rankings(arguments.data, case, arguments.seeds)
            path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    write(kept, truth)


def rankings(data: Path, case: Case, seeds: list[int]) -> dict[str, Any]:
    """The rankings of one set, a seed each, and the CPU seconds of the first."""
    registry = load_registry()
    specs = [competitor(registry, data, case, name, twin) for name, twin in case.candidates]
    registry.manager.register(SimpleNamespace(tl_backbones=hookimpl(lambda: specs)), name="contest")
    found: list[dict[str, Any]] = []
    cost: dict[str, float] = {}
    full: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in seeds:
            root = Path(scratch) / str(seed)
            workspace = Workspace(root=root, store=Path(scratch) / "store", cache=Path(scratch) / "cache")
            manifest = manifest_of(registry, data, case, ROOT / ".tl")
            workspace.step("version").mkdir(parents=True)
            manifest.save(workspace.manifest)
            config = validate(
                {
                    "seed": seed,
                    "select": {"backbones": [s.name for s in specs], "sample": case.rows},
                    "tune": {"strategy": "finetune"},  # what the truth is about: candidates are judged by all layers
                }
            )
            cpu, started = time.process_time(), time.perf_counter()
            select(config, registry, workspace)
            if not cost:
                cost = {"cpu_seconds": round(time.process_time() - cpu, 1),
                        "seconds": round(time.perf_counter() - started, 1)}  # fmt: skip
                full = {spec.name: without_race(spec, manifest, case, registry, config, workspace) for spec in specs}
            ranking = read_json(workspace.ranking)
            found.append({key: ranking[key] for key in ("chosen", "why", "stopped", "rounds", "candidates")})
            print(
                f"{case.dataset} seed {seed}: {ranking['chosen']} ({ranking['why']}; {ranking['stopped']})", flush=True
            )
    return {**cost, "seeds": seeds, "rankings": found, "full": full}


def without_race(
    spec: BackboneSpec, manifest: Manifest, case: Case, registry: Registry, config: RunConfig, workspace: Workspace
) -> dict[str, float]:
    """A candidate's scores on all the rows that the truth trained on, whether or not the race went so far.

    The probe on the embedding and on all layers; the other scores on the embedding, as published.
    """
    rows, loader, store = training_rows(manifest, case), registry.loader(case.modality), FeatureStore(workspace.store)
    backbone, targets = all_views(spec).build(), manifest.targets
    got = extract(manifest, rows, loader, backbone, store)
    space = Space(backbone.fingerprint, END, got.precision)
    x = torch.from_numpy(features(manifest, rows, loader, lambda: backbone, space, store))
    y = torch.from_numpy(manifest.target_array(rows))
    embedding = x[:, slices({"views": backbone.table})[END]].contiguous()
    found = {}
    for name, given in (("probe", embedding), ("all_layers", x)):
        outcomes = cross_validated_outcomes(given, y, targets.task, targets.outputs, config.select.folds, config.seed)
        found[name] = float(outcomes.metric())
    scores = scores_of(embedding, y, targets.task, confidence=0.9, seed=config.seed)
    return found | {name: score.value for name, score in scores.items()}


def competitor(registry: Registry, data: Path, case: Case, name: str, twin: int | None) -> BackboneSpec:
    """A candidate under a name of its own; a random twin draws its weights instead of reading them."""
    base = spec_of(registry, data, name, case.modality)

    def build(spec: BackboneSpec, random_seed: int | None) -> Backbone:
        return base.builder(base, twin if random_seed is None else random_seed)

    own = title(name if twin is None else f"{name} (random)")
    return BackboneSpec(own, case.modality, base.source, base.location, build, licence=base.licence,
                        options={**base.options, "competitor": own})  # fmt: skip


if __name__ == "__main__":
    main()
