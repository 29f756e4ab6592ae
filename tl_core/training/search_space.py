"""What a search may change: the settings that matter for a strategy, each with its range and what the config has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tl_core.training.adapters import ADAPTERS
from tl_core.training.plan import first_trained, weighted

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from tl_core.training.job import Job

STRENGTHS = (1e-3, 1e4)  # of the probe: beyond, nothing is learnt any more, or everything by heart
RATES = (1e-6, 1e-2)
HEAD_RATES = (1e-5, 1e-1)
DECAYS = (1e-4, 0.3)


@dataclass(frozen=True)
class Setting:
    """A key of `config.tune`, the values that it may take, and the one of the config, moved into that range."""

    key: str
    range: BaseDistribution
    now: Any


def settings_of(job: Job) -> list[Setting]:
    """What a search over this job's strategy changes."""
    return _of_probe(job) if job.config.tune.strategy == "probe" else _of_finetuning(job)


def as_config(settings: dict[str, Any]) -> dict[str, Any]:
    """A trial's values as changes of `config.tune`."""
    found = dict(settings)
    if "strength" in found:
        found["strengths"] = (found.pop("strength"),)
    return found


def _of_probe(job: Job) -> list[Setting]:
    from optuna.distributions import CategoricalDistribution

    tune = job.config.tune
    middle = sorted(tune.strengths)[len(tune.strengths) // 2]
    found = [_log("strength", STRENGTHS, middle)]
    if job.task.task == "multiclass":
        found.append(Setting("balance", CategoricalDistribution([False, True]), tune.balance))
    return found


def _of_finetuning(job: Job) -> list[Setting]:
    from optuna.distributions import FloatDistribution, IntDistribution

    tune = job.config.tune
    found = [_log("lr", RATES, tune.lr), _log("head_lr", HEAD_RATES, tune.head_rate)]
    backbone = job.spec.build()
    depth = len(weighted(backbone))
    least = 2 if tune.strategy == "gradual" else 1
    if tune.strategy != "scratch" and depth > least:
        now = tune.train_from
        if not isinstance(now, int):
            start = first_trained(backbone, now)
            now = sum(index >= start for index in weighted(backbone))
        found.append(Setting("train_from", IntDistribution(least, depth), now))
    found.append(Setting("layer_decay", FloatDistribution(0.5, 1.0), max(0.5, tune.layer_decay)))
    pulled = tune.l2_sp > 0 and tune.update not in ADAPTERS
    found.append(_log("l2_sp", DECAYS, tune.l2_sp) if pulled else _log("weight_decay", DECAYS, tune.weight_decay))
    if job.task.task != "regression":
        found.append(Setting("label_smoothing", FloatDistribution(0.0, 0.3), min(0.3, tune.label_smoothing)))
    return found


def _log(key: str, bounds: tuple[float, float], now: float) -> Setting:
    """A setting whose orders of magnitude count."""
    from optuna.distributions import FloatDistribution

    low, high = bounds
    return Setting(key, FloatDistribution(low, high, log=True), min(high, max(low, now)))
