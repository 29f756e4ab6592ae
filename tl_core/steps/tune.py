"""tune: train the head (and, where asked, the top of the backbone) and leave a bundle."""

from __future__ import annotations

from typing import Any

import torch

from tl_core.bundle import save_bundle
from tl_core.config import RunConfig
from tl_core.extraction import features, resolve_device, space_of
from tl_core.manifest import Manifest
from tl_core.registry import Registry
from tl_core.steps.backbone import Lazy, chosen
from tl_core.steps.record import recorded
from tl_core.store import FeatureStore, Space
from tl_core.training import finetune, fit_probe
from tl_core.weights import read_json
from tl_core.workspace import Workspace, write_json

FORMAT_VERSION = 1


def tune(config: RunConfig, registry: Registry, workspace: Workspace) -> dict[str, Any]:
    """Train into artifacts/tune: model/ (the bundle) and tune.json (what was tried on the validation rows)."""
    with recorded(workspace, "tune") as results:
        manifest = Manifest.load(workspace.manifest, workspace.root)
        loader = registry.loader(manifest.modality)
        request, spec = chosen(registry, workspace, manifest.modality)
        receipt = read_json(workspace.receipt)
        targets = manifest.targets
        head_spec = registry.head(manifest.modality, targets.task, config.tune.head)
        torch.manual_seed(config.seed)  # a plugin's head may draw its first weights
        lazy = Lazy(spec)
        head = head_spec.build(receipt["backbone"]["feature_dim"], targets)
        train, val = manifest.rows("train"), manifest.rows("val")
        facts: dict[str, Any] = {"format": FORMAT_VERSION, "strategy": config.tune.strategy, "watch": head_spec.watch}
        trained: tuple[str, ...] = ()
        if config.tune.strategy == "probe":
            space = Space(receipt["backbone"]["fingerprint"], receipt["backbone"]["cut"], receipt["precision"])
            store = FeatureStore(workspace.store)
            x_train, x_val = (
                torch.from_numpy(
                    features(
                        manifest,
                        rows,
                        loader,
                        lazy,
                        space,
                        store,
                        device=config.extract.device,
                        engine=config.extract.engine,
                    )
                )
                for rows in (train, val)
            )
            y_train, y_val = (torch.from_numpy(manifest.target_array(rows)) for rows in (train, val))
            fit = fit_probe(
                x_train, y_train, x_val, y_val, head, head_spec, targets, config.tune.strengths, config.tune.refit
            )
            head, backbone = fit.head, lazy()
            best = next(point for point in fit.path if point["strength"] == fit.strength)
            facts.update(strength=fit.strength, refit=config.tune.refit, path=fit.path, validation=best["val"])
        else:
            device = resolve_device(config.extract.device)
            tuned = finetune(manifest, loader, lazy(), head, head_spec, config, device, receipt["precision"])
            head, backbone, trained = tuned.head, tuned.backbone, tuned.trained
            facts.update(
                best_epoch=tuned.best_epoch,
                trained_segments=list(trained),
                history=tuned.history,
                validation=tuned.history[tuned.best_epoch - 1]["val"],
            )
        save_bundle(
            workspace.model,
            spec=spec,
            request=request,
            backbone=backbone,
            trained=trained,
            head=head,
            head_spec=head_spec,
            targets=targets,
            precision=receipt["precision"],
            training={
                "strategy": config.tune.strategy,
                "data_version": manifest.data_version,
                "training_rows": len(train),
                "validation_rows": len(val),
                f"validation_{head_spec.watch}": facts["validation"],
                "features": space_of(backbone, receipt["precision"]).fingerprint if not trained else "fine-tuned",
                "seed": config.seed,
            },
        )
        write_json(workspace.step("tune") / "tune.json", facts)
        results.update(
            strategy=config.tune.strategy,
            watch=head_spec.watch,
            validation=facts["validation"],
            **{key: facts[key] for key in ("strength", "best_epoch", "trained_segments") if key in facts},
        )
    return results
