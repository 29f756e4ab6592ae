"""Holding the new model against the one that serves: what the gate asks of files, stores and plugins."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from tl_core.bundle import ModelBundle, seen_in
from tl_core.config import RunConfig
from tl_core.errors import DecodeError
from tl_core.gate import Asked, Candidate, judge
from tl_core.gate.scoring import candidate, latency, megabytes
from tl_core.manifest import Manifest
from tl_core.registry import load_registry
from tl_core.report import ReportFacts
from tl_core.report.contest import Contest, Cost, contest
from tl_core.store import FeatureStore
from tl_core.types import Loader
from tl_core.weights import weights_digest
from tl_core.workspace import Workspace
from tl_flows.retraining.test_sets import TestSets

CHALLENGER = "the new model"
TIMED = 8  # samples by which the page tells how long a model takes


@dataclass(frozen=True)
class Serving:
    """The champion: its version's name, where its bundle lies, and the data that it was made from."""

    name: str
    bundle: Path
    manifest: Manifest


def decide(workspace: Workspace, config: RunConfig, sets: TestSets, serving: Serving | None) -> Contest:
    """Whether the model in a project's workspace may take the place of the one that serves, and what shows why.

    Both answer the same rows of the data as they are now. Raises UserError where they can't be compared.
    """
    registry = load_registry()
    manifest = Manifest.load(workspace.manifest, workspace.root)
    test_set, former = sets.current(), sets.replaced()
    folders = (workspace.model, *((serving.bundle,) if serving else ()))
    asked = Asked.of(
        manifest,
        test_set,
        serving.manifest if serving else None,
        renew_share=config.gate.renew_share,
        former=former,
        seen=[seen for folder in folders if (seen := seen_in(folder)) is not None],
    )
    store = FeatureStore(workspace.store)

    def standing(name: str, folder: Path) -> tuple[Candidate, Cost, Loader]:
        bundle = ModelBundle.load(folder, registry, device=config.extract.device)
        digest = weights_digest(sorted(path for path in folder.rglob("*") if path.is_file()))
        found = candidate(name, digest, folder, bundle, manifest, asked, store, config)
        return found, _cost(found, folder, bundle, manifest, asked), bundle.loader

    challenger, cost, loader = standing(CHALLENGER, workspace.model)
    champion = standing(serving.name, serving.bundle)[:2] if serving else None
    decision = judge(
        asked,
        challenger,
        champion[0] if champion else None,
        test_set,
        config.gate,
        uses=sets.uses(test_set),
        evaluation=ReportFacts.load(workspace.step("evaluate") / "report.json").evaluation,
        resamples=config.evaluate.bootstrap,
        seed=config.seed,
    )

    def render(row: int) -> str | None:
        with contextlib.suppress(DecodeError, OSError):  # it has changed since it was scored
            return loader.render(manifest.sample(row).source)
        return None

    return contest(
        decision,
        asked,
        manifest,
        (challenger, cost),
        (*champion, serving.manifest) if champion and serving else None,
        render,
        max_uses=config.gate.max_uses,
    )


def _cost(found: Candidate, folder: Path, bundle: ModelBundle, manifest: Manifest, asked: Asked) -> Cost:
    """A model's time and size; measured here where no limit of the gate has asked for them."""
    sources = [sample.source for sample in manifest.samples(asked.rows[:TIMED])]
    return Cost(
        found.milliseconds if found.milliseconds is not None else latency(bundle, sources, repeats=1),
        found.megabytes if found.megabytes is not None else megabytes(folder, bundle),
    )
