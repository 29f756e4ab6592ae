"""The job that tune fits and evaluate asks about: the chosen backbone on the manifest's rows."""

from __future__ import annotations

from tl_core.config import RunConfig
from tl_core.engines import resolve_device
from tl_core.manifest import Manifest
from tl_core.pins import Pins, check_weights
from tl_core.registry import Registry
from tl_core.steps.backbone import Lazy, chosen
from tl_core.store import FeatureStore, Space
from tl_core.training import Job
from tl_core.weights import read_json
from tl_core.workspace import Workspace


def job_of(step: str, config: RunConfig, registry: Registry, workspace: Workspace) -> tuple[Job, str]:
    """The job as the steps before have left it, and the backbone as it was asked for; its state is in `.tl/<step>`.

    Raises UserError where the backbone's weights are not those that are pinned.
    """
    manifest = Manifest.load(workspace.manifest, workspace.root)
    request, spec = chosen(registry, workspace, manifest.modality)
    pins = Pins.at(workspace.root)
    if pins.weights:  # as a rule its facts are known from the step before: nothing is read
        check_weights(request, Lazy(spec).facts(request, workspace.cache), pins, workspace.root)
    receipt = read_json(workspace.receipt)
    job = Job(
        manifest=manifest,
        train=manifest.rows("train"),
        val=manifest.rows("val"),
        loader=registry.loader(manifest.modality),
        spec=spec,
        head_spec=registry.head(manifest.modality, manifest.targets.task, config.tune.head),
        config=config,
        device=resolve_device(config.extract.device),
        space=Space(receipt["backbone"]["fingerprint"], receipt["backbone"]["cut"], receipt["precision"]),
        store=FeatureStore(workspace.store),
        state=workspace.state / step,
    )
    return job, request
