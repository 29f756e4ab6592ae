"""The probe as a fit: on stored embeddings, its strength chosen on validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tl_core.training.probe import fit_probe
from tl_core.watch import watch_metric

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tl_core.training.job import Fitted, Job


def probe(job: Job, embeddings: Callable[[np.ndarray], Tensor] | None = None) -> Fitted:
    """Fit the probe to the job's rows; what it says of them, it says before it is fitted once more on train + val.

    embeddings: float32 [N, D] of manifest rows, where they are not those that the store holds. Raises UserError on a
    head that is not linear, and as extraction's features() does.
    """
    from tl_core.training.job import Fitted, decoded

    tune, targets = job.config.tune, job.manifest.targets
    features = embeddings or job.features
    x_train, x_val = features(job.train), features(job.val)
    y_val = job.targets(job.val)
    fit = fit_probe(
        x_train,
        job.targets(job.train),
        x_val,
        y_val,
        job.head(x_train.shape[1]),
        job.head_spec,
        targets,
        tune.strengths,
        tune.refit,
        balance=tune.balance,
        calibrate=tune.calibrate,
    )
    said = decoded(fit.head, fit.val_logits)
    facts = {"strength": fit.strength, "refit": tune.refit, "path": fit.path}
    return Fitted(
        head=fit.head,
        backbone=None,
        trained=(),
        facts={
            "strategy": "probe",
            "validation": watch_metric(targets.task, said, y_val.numpy(), job.head_spec.watch),
            "temperature": fit.temperature,
            "probe": facts,
            "finetune": None,
        },
        said=said,
        seen=job.train,
        said_seen=decoded(fit.head, fit.head(x_train)),
    )
