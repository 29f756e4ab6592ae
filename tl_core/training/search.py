"""A search over settings before the final fit: Optuna's TPE, judged on validation, the same after a kill as without.

Trials run in memory. Those that are done are copied to the storage, and a run that goes on reads them back from there.
Each suggestion is drawn by the seed and the number of the trial, and so depends on nothing but the trials before it.
TPE: Bergstra et al., NeurIPS 2011; the median rule that ends hopeless trials: Golovin et al., KDD 2017.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_core.errors import UserError
from tl_core.progress import progress
from tl_core.training.job import Job, fit
from tl_core.training.processes import processes
from tl_core.training.search_probe import ProbeTrials
from tl_core.training.search_space import as_config, settings_of

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

STARTUP = 10  # trials at random before the sampler models anything
UNPRUNED = 5  # trials before any is ended early
KEPT_EVERY = 50  # probe trials between copies to the storage: a commit costs as much as a trial
IMPORTANCE_FROM = 10  # finished trials: with fewer, there is nothing to be said of what mattered
OF_NO_CONSEQUENCE = {"minutes", "search", "save_minutes", "curve", "calibrate", "refit"}  # to a trial

Attempt = Callable[["Trial", dict[str, Any]], tuple[float, float]]
"""Fits by a trial's settings: (watched metric, loss) on validation. Raises TrialPruned, and UserError as fit() does."""


@dataclass(frozen=True)
class Found:
    """What a search has found. settings: changes of `config.tune`; facts: the block `search` of tune.json."""

    settings: dict[str, Any]
    facts: dict[str, Any]


def search(job: Job) -> Found:
    """The best settings of `tune.search.trials` on the validation rows, the config's own among them.

    The strategy must be decided already. Best is by the watched metric, then by the loss, then the earlier. Trials are
    kept in `tune.search.storage`, else in a SQLite file in `job.state`, under a digest of all that decides them: a
    search that was killed ends as it would have, and a longer one goes on from a shorter one. A trial that diverges
    counts as pruned. Of processes that were launched together each tries the same, and the first keeps it.
    Raises UserError where Optuna is missing, where the storage can't be opened, where no trial can be fitted, and with
    contrastive tuning.
    """
    _require()
    if job.config.tune.strategy == "contrastive":
        raise UserError(
            f"config key 'tune.search.trials' can't be {job.config.tune.search.trials} with tune.strategy=contrastive: "
            "what a search changes are settings of other strategies; set it to 0"
        )
    with _quiet():
        return _Search(job).go()


class _Search:
    """A search under way: trials in memory, and a copy of those that are done in the storage."""

    def __init__(self, job: Job) -> None:
        import optuna

        self._job, tune = job, job.config.tune
        self._settings = settings_of(job)
        probe = tune.strategy == "probe"
        self._attempt: Attempt = _probe_attempt(job) if probe else _finetune_attempt(job)
        self._kept_every = KEPT_EVERY if probe else 1
        self._direction = "maximize" if job.head_spec.higher_is_better else "minimize"
        self._together = processes(job.device)
        if not self._together.main:
            self._together.wait()  # until the main process has made the storage
        self._storage = _opened(job, self._name(), self._direction)
        if self._together.main:
            self._together.wait()
        pruner = optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED, n_warmup_steps=1)
        self._study = optuna.create_study(direction=self._direction, pruner=pruner)
        self._study.add_trials(_finished(self._storage)[: tune.search.trials])
        self._together.wait()  # until all have read what is kept, before more is
        self._faults: list[UserError] = []

    def go(self) -> Found:
        """Try what is left to try; the best, and what was found on the way."""
        import optuna

        wanted = self._job.config.tune.search.trials
        done = kept = len(_finished(self._study))
        with progress(wanted, "search", unit="trial", shown=self._together.main) as bar:
            bar.update(done)
            try:
                while done < wanted:
                    self._try(done)
                    done += 1
                    bar.update()
                    if done - kept >= self._kept_every:
                        kept = self._keep(kept)
            finally:
                self._keep(kept)
        complete = [trial for trial in _finished(self._study) if trial.state is optuna.trial.TrialState.COMPLETE]
        if not complete:
            raise self._faults[0]
        return self._found(complete)

    def _try(self, number: int) -> None:
        import optuna

        seed = int(np.random.SeedSequence([self._job.config.seed, number]).generate_state(1)[0])
        self._study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=seed)
        if number == 0:
            self._study.enqueue_trial({setting.key: setting.now for setting in self._settings})
        trial = self._study.ask({setting.key: setting.range for setting in self._settings})
        try:
            value, loss = self._attempt(trial, dict(trial.params))
        except optuna.TrialPruned:
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        except UserError as error:  # most of all that it diverges
            self._faults.append(error)
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            trial.set_user_attr("loss", loss)
            self._study.tell(trial, value)

    def _keep(self, kept: int) -> int:
        """Copy what is done since the last copy to the storage; how many are there."""
        done = _finished(self._study)
        if self._together.main:
            self._storage.add_trials(done[kept:])
        return len(done)

    def _found(self, complete: Sequence[FrozenTrial]) -> Found:
        sign = 1.0 if self._direction == "maximize" else -1.0
        ranks = [(sign * float(trial.value), -trial.user_attrs["loss"]) for trial in complete]
        best = complete[max(range(len(ranks)), key=lambda i: ranks[i])]
        so_far = sign * np.maximum.accumulate([rank for rank, _ in ranks])
        trials = len(_finished(self._study))
        return Found(
            as_config(best.params),
            {
                "trials": trials,
                "pruned": trials - len(complete),
                "watch": self._job.head_spec.watch,
                "best": {"settings": dict(best.params), "value": float(best.value)},
                "values": [round(float(value), 6) for value in so_far],
                "importance": _importance(self._study, complete),
            },
        )

    def _name(self) -> str:
        """A digest of all that decides the trials, which is the study's name."""
        job, tune = self._job, self._job.config.tune
        own: dict[str, Any] = {"seed": True, "tune": set(type(tune).model_fields) - OF_NO_CONSEQUENCE}
        facts = [
            job.config.model_dump(mode="json", include=own),
            job.spec.name,
            [job.space.fingerprint, job.space.cut, job.space.precision],
            [job.manifest.digests(rows) for rows in (job.train, job.val)],
            [job.manifest.target_array(rows).tolist() for rows in (job.train, job.val)],
            [f"{setting.key} {setting.range}" for setting in self._settings],
        ]
        return f"tl-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]}"


def _probe_attempt(job: Job) -> Attempt:
    trials = ProbeTrials(job)
    return lambda trial, settings: trials(settings)


def _finetune_attempt(job: Job) -> Attempt:
    import optuna

    sign = 1.0 if job.head_spec.higher_is_better else -1.0

    def attempt(trial: Trial, settings: dict[str, Any]) -> tuple[float, float]:
        reported = 0

        def judged(history: Sequence[Mapping[str, Any]]) -> None:
            """Report each epoch once, and end what is hopeless: also of a fit that goes on from its saved state."""
            nonlocal reported
            for row in history[reported:]:
                reported += 1
                trial.report(row["val"], row["epoch"])
                if trial.should_prune():
                    raise optuna.TrialPruned

        mine = job.tuned(**as_config(settings)).replace(state=job.state / f"trial-{trial.number}", judged=judged)
        try:
            history = fit(mine).facts["finetune"]["history"]
            judged(history)
        except (optuna.TrialPruned, UserError):
            shutil.rmtree(mine.state, ignore_errors=True)  # a fit that is ended otherwise goes on from there
            raise
        shutil.rmtree(mine.state, ignore_errors=True)
        best = max(history, key=lambda row: (sign * row["val"], -row["val_loss"]))
        return best["val"], best["val_loss"]

    return attempt


def _finished(study: Study) -> list[FrozenTrial]:
    from optuna.trial import TrialState

    found: list[FrozenTrial] = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return found


def _importance(study: Study, complete: Sequence[FrozenTrial]) -> dict[str, float]:
    """Share of each setting in how good a trial was; nothing where too few trials differ.

    PED-ANOVA: Watanabe et al., IJCAI 2023, arXiv:2304.10255.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    if len(complete) < IMPORTANCE_FROM or len({trial.value for trial in complete}) < 2:
        return {}
    found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return {key: round(share, 4) for key, share in found.items() if math.isfinite(share)}


def _opened(job: Job, name: str, direction: str) -> Study:
    """The study in the storage that the config names, else in a file beside the fit's own state."""
    import optuna

    url = job.config.tune.search.storage
    if url is None:
        job.state.mkdir(parents=True, exist_ok=True)
    try:
        storage = optuna.storages.RDBStorage(url or f"sqlite:///{job.state / 'search.db'}")
        if url is None:
            _unhurried(storage)
        return optuna.create_study(study_name=name, storage=storage, direction=direction, load_if_exists=True)
    except Exception as error:  # whatever a database's driver raises
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"config key 'tune.search.storage' can't be {url!r}: {reason}; give an Optuna storage URL such as "
            "sqlite:///search.db, or null for a file in .tl/"
        ) from error


def _unhurried(storage: RDBStorage) -> None:
    """Let commits not wait for the disk: a process that is killed loses nothing by it, and trials can be made again."""
    from sqlalchemy import event

    def connected(connection: Any, record: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(storage.engine, "connect", connected)
    storage.engine.dispose()


def _require() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise UserError(
            "config key 'tune.search.trials' needs Optuna: pip install 'tl-core[search]', or set it to 0"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's lines on each trial, and its notes on what is new in it."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"optuna\b")
            yield
    finally:
        logger.setLevel(level)
