"""Holding the new model against the one that serves: what the gate asks of files, stores and plugins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tl_core.bundle import ModelBundle
from tl_core.config import RunConfig
from tl_core.gate import Asked, Candidate, Decision, judge
from tl_core.gate.scoring import candidate
from tl_core.manifest import Manifest
from tl_core.registry import load_registry
from tl_core.report import ReportFacts
from tl_core.store import FeatureStore
from tl_core.weights import weights_digest
from tl_core.workspace import Workspace
from tl_flows.retraining.test_sets import TestSets

CHALLENGER = "the new model"


@dataclass(frozen=True)
class Serving:
    """The champion: its version's name, where its bundle lies, and the data that it was made from."""

    name: str
    bundle: Path
    manifest: Manifest


def decide(workspace: Workspace, config: RunConfig, sets: TestSets, serving: Serving | None) -> Decision:
    """Whether the model in a project's workspace may take the place of the one that serves.

    Both answer the same rows of the data as they are now. Raises UserError where they can't be compared.
    """
    registry = load_registry()
    manifest = Manifest.load(workspace.manifest, workspace.root)
    test_set, former = sets.current(), sets.replaced()
    asked = Asked.of(
        manifest,
        test_set,
        serving.manifest if serving else None,
        renew_share=config.gate.renew_share,
        former=former,
    )
    store = FeatureStore(workspace.store)

    def standing(name: str, folder: Path) -> Candidate:
        bundle = ModelBundle.load(folder, registry, device=config.extract.device)
        digest = weights_digest(sorted(path for path in folder.rglob("*") if path.is_file()))
        return candidate(name, digest, folder, bundle, manifest, asked, store, config)

    return judge(
        asked,
        standing(CHALLENGER, workspace.model),
        standing(serving.name, serving.bundle) if serving else None,
        test_set,
        config.gate,
        uses=sets.uses(test_set),
        evaluation=ReportFacts.load(workspace.step("evaluate") / "report.json").evaluation,
        resamples=config.evaluate.bootstrap,
        seed=config.seed,
    )
