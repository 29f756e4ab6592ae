"""select: which backbone, by a race of the candidates on growing samples of the training rows."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tl_core.config import RunConfig
from tl_core.engines import resolve_device, resolve_precision
from tl_core.errors import UserError
from tl_core.manifest import Manifest
from tl_core.names import split_view
from tl_core.pins import pinned
from tl_core.progress import progress
from tl_core.registry import Registry
from tl_core.selection.fit import Warnings, lines, warnings_for
from tl_core.selection.outcomes import Outcomes
from tl_core.selection.race import Budget, Entrant, Progress, Race, judge_by, run_race
from tl_core.selection.ranking import Candidate, ScoreRow, rounded, why_chosen
from tl_core.selection.sample import nested_sample
from tl_core.selection.scores import Score, consensus, scores_of
from tl_core.selection.speed import speed_of
from tl_core.selection.standing import Standing, choose, contenders, standings
from tl_core.steps.backbone import located
from tl_core.steps.entrants import Entered, Entrants
from tl_core.steps.finalist_views import ViewCandidate, clearly_better, views_of_finalists
from tl_core.steps.record import recorded
from tl_core.store import FeatureStore
from tl_core.types import BackboneSpec, Loader
from tl_core.watch import DEFAULT
from tl_core.weights import find_weights, folder_here, weights_here
from tl_core.workspace import Workspace, write_json

FORMAT_VERSION = 2
GUARD = 2.0  # times select.minutes by the clock: what the plan may be wrong by before the race is stopped
FLOPS_PER_BYTE = 100.0  # of float32 weights: MobileNets 40, MiniLM 30, ResNets and ViTs 80 to 100
FINALISTS = 2  # whose views are looked at: a pass over the sample each
OPENING_SECONDS = 2.0  # reading or converting weights and fitting the probe, per candidate and round

_log = logging.getLogger(__name__)


def select(config: RunConfig, registry: Registry, workspace: Workspace) -> dict[str, Any]:
    """Rank the candidates into artifacts/select/ranking.json and name the chosen one.

    A candidate that can't be had drops out with its reason; UserError where none is left. Features stay in the store,
    and the plan goes by work, so that after a kill the next run comes to the same ranking without computing them again.
    """
    with recorded(workspace, "select") as results:
        manifest = Manifest.load(workspace.manifest, workspace.root)
        device = resolve_device(config.extract.device)
        requests = candidates(config, registry, manifest.modality, workspace.root, device.type)
        specs = _distinct(_specs(requests, registry, manifest.modality, workspace.root))
        rows, sizes = nested_sample(manifest, config.select.sample, config.seed)
        loader = registry.loader(manifest.modality)
        warned = warnings_for([spec for _, spec in specs], manifest, loader, config, workspace.cache)
        for line in lines(warned):
            _log.warning("warning %s", line)
        entrants = Entrants(config, manifest, loader, workspace, rows, specs, device)
        # not the class that the store holds: rows of an earlier run must not change the plan
        speed = speed_of(device, resolve_precision(config.extract.precision, device, {}), workspace.cache)
        budget = Budget(config.select.minutes, speed, OPENING_SECONDS)
        race = _run(config, entrants, sizes, budget, DEFAULT[manifest.targets.task])
        if not race.history:
            raise UserError(_nothing_left(race, registry, manifest.modality, [spec for _, spec in specs]))
        entrants.close()
        views = _views(config, manifest, loader, workspace, entrants, race, budget)
        ranking = rounded(_ranked(config, manifest, entrants, race, views, warned))
        write_json(workspace.ranking, ranking)
        results.update(_told(ranking, entrants, race, views, budget))
    return results


def _run(config: RunConfig, entrants: Entrants, sizes: Sequence[int], budget: Budget, metric: str) -> Race:
    """The race over the candidates, with a bar that shows who leads."""
    settings, started = config.select, time.perf_counter()

    def time_left() -> float:  # downloads and weights are no part of it: the next run does without them
        return GUARD * 60 * settings.minutes - (time.perf_counter() - started - entrants.opening)

    with progress(None, "select", unit="candidate") as bar:

        def watch(now: Progress) -> None:
            leads = f"; {now.leader} leads, {metric} {now.value:.3f}" if now.leader else ""
            bar.total, bar.n = now.entered, now.done
            bar.set_description_str(f"select, round {now.round}: {now.rows:,} samples{leads}")

        return run_race(
            [Entrant(name, entered.spec.flops, _guess(entered.spec)) for name, entered in entrants.of.items()],
            sizes,
            weigh=entrants.weigh,
            measure=entrants.measure,
            judge=judge_by(confidence=config.evaluate.confidence, tolerance=settings.tolerance, seed=config.seed),
            budget=budget,
            time_left=time_left,
            watch=watch,
        )


@dataclass(frozen=True)
class _Views:
    """What became of the finalists' views: those that joined the ranking, and all that were looked at.

    tried: `name`, `probe` and whether it `joined`, of each; computed, reused: rows of features.
    """

    joined: Mapping[str, tuple[ViewCandidate, Outcomes]]
    tried: Sequence[Mapping[str, Any]] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    computed: int = 0
    reused: int = 0


def _guess(spec: BackboneSpec) -> float | None:
    """FLOPs of a row by the size of the weights, None where these are not here yet."""
    folder = folder_here(spec)
    try:
        if spec.source == "file":
            files = [Path(spec.location).expanduser()]
        else:
            files = find_weights(folder) if folder is not None else []
        return FLOPS_PER_BYTE * sum(file.stat().st_size for file in files) or None
    except (UserError, OSError):  # the candidate will say so itself
        return None


def _views(
    config: RunConfig,
    manifest: Manifest,
    loader: Loader,
    workspace: Workspace,
    entrants: Entrants,
    race: Race,
    budget: Budget,
) -> _Views:
    """The views of the race's finalists, as far as the budget goes; none where the user named a single backbone."""
    names = race.survivors
    # fine-tuning trains the whole, and has been judged by all layers already
    if not config.select.cuts or not config.tune.may_probe or len(entrants.of) == 1 or not names or race.late:
        return _Views({})
    level = {one.name: one for one in standings(race.history, confidence=config.evaluate.confidence, seed=config.seed)}
    finalists: list[Entered] = []
    work = race.planned
    for name in sorted(names, key=lambda n: level[n].rank)[:FINALISTS]:
        more = budget.of(race.flops[name], level[name].rows)
        # where all leaders dropped out, those that are left need not have seen as many rows
        alike = not finalists or level[name].rows == finalists[0].rows
        if level[name].tied and alike and work + more <= budget.work:
            finalists.append(entrants.of[name])
            work += more
    if not finalists:
        return _Views({})
    sample = entrants.sample(finalists[0].spec.name)
    found = views_of_finalists(
        finalists, manifest, sample, loader, FeatureStore(workspace.store), workspace.cache, config.extract
    )
    known = {one.own_facts["fingerprint"] for one in entrants.of.values() if one.facts}
    new = [one for one in found.candidates if one.spec.name not in entrants.of]  # nor named by the user
    new = [one for one in new if one.own_facts["fingerprint"] not in known]
    outcomes = {one.spec.name: entrants.outcomes(one.features) for one in new}
    better: list[str] = []
    for finalist in finalists:
        mine = {c.spec.name: outcomes[c.spec.name] for c in new if c.spec.base == finalist.spec}
        whole = race.history[finalist.spec.name][-1]
        better += clearly_better(
            whole, mine, looked_at=len(outcomes), confidence=config.evaluate.confidence, seed=config.seed
        )
    return _Views(
        {one.spec.name: (one, outcomes[one.spec.name]) for one in new if one.spec.name in better},
        [{"name": n, "probe": float(o.metric()), "joined": n in better} for n, o in outcomes.items()],
        found.dropped,
        sum(found.computed.values()),
        found.reused,
    )


def _ranked(
    config: RunConfig, manifest: Manifest, entrants: Entrants, race: Race, views: _Views, warned: Warnings
) -> dict[str, Any]:
    """What ranking.json holds."""
    settings, confidence = config.select, config.evaluate.confidence
    history = {**race.history, **{name: [outcomes] for name, (_, outcomes) in views.joined.items()}}
    found = standings(history, confidence=confidence, seed=config.seed)
    scores = _scores(found, config, manifest, entrants, views)
    ranked = []
    for one in found:
        view = views.joined[one.name][0] if one.name in views.joined else None
        entered = view or entrants.of[one.name]
        ranked.append(
            Candidate.measured(
                entered.spec,
                entered.own_facts,
                one,
                eliminated=race.eliminated.get(one.name),
                flops=view.flops if view else race.flops[one.name],
                scores=scores[one.name],
                warnings=_warnings(warned, entered.spec),
            )
        )
    chosen = choose(
        found,
        prefer=settings.prefer,
        tolerance=settings.tolerance,
        flops={c.name: c.flops for c in ranked},
        params={c.name: c.params for c in ranked},
        out=race.eliminated,
    )
    tied = contenders(found, tolerance=settings.tolerance, out=race.eliminated)
    dropped = [
        Candidate.dropped(entrants.of[name].spec, reason, _warnings(warned, entrants.of[name].spec))
        for name, reason in sorted(race.dropped.items())
    ]
    return {
        "format": FORMAT_VERSION,
        "chosen": chosen,
        "request": (views.joined[chosen][0] if chosen in views.joined else entrants.of[chosen]).request,
        "why": why_chosen(contenders=len(tied), measured=len(found), entered=len(entrants.of), prefer=settings.prefer),
        "task": manifest.targets.task,
        "metric": DEFAULT[manifest.targets.task],
        "judged_on": "embedding" if config.tune.may_probe else "all layers",
        "confidence": confidence,
        "prefer": settings.prefer,
        "tolerance": settings.tolerance,
        "sample_rows": max(one.rows for one in found),
        "training_rows": len(manifest.rows("train")),
        "stopped": race.stopped,
        "rounds": [asdict(one) for one in race.rounds],
        "warnings": [asdict(one) for one in warned.data],
        "views": list(views.tried),
        "candidates": [asdict(c) for c in [*ranked, *dropped]],
    }


def _warnings(warned: Warnings, spec: BackboneSpec) -> list[dict[str, str]]:
    """Those of a backbone, or of the one that a view was cut from."""
    return [asdict(one) for one in warned.backbones.get((spec.base or spec).name, ())]


def _scores(
    standing: Sequence[Standing], config: RunConfig, manifest: Manifest, entrants: Entrants, views: _Views
) -> Mapping[str, Mapping[str, ScoreRow]]:
    """The scores of each candidate on the rows that it was measured on last; none where its features allow none.

    The consensus is over those that were measured on most rows: scores on fewer are not comparable with theirs.
    """
    found: dict[str, dict[str, Score]] = {}
    for name in (one.name for one in standing):
        view = views.joined.get(name)
        x, y, groups = entrants.learnable(view[0].features) if view else entrants.features(name)
        try:
            found[name] = scores_of(
                x, y, manifest.targets.task, groups=groups, confidence=config.evaluate.confidence, seed=config.seed
            )
        except (ValueError, ArithmeticError, RuntimeError) as error:  # second opinions end no race
            _log.warning("select no scores of %s: %s", name, error)
            found[name] = {}
    most = max(one.rows for one in standing)
    peers = [one.name for one in standing if one.rows == most]
    agreed = consensus({name: {key: score.value for key, score in found[name].items()} for name in peers})
    rows: dict[str, dict[str, ScoreRow]] = {
        name: {key: asdict(score) for key, score in own.items()} for name, own in found.items()
    }
    for name, value in agreed.items():
        rows[name]["consensus"] = {"value": value, "low": None, "high": None}
    return rows


def _told(ranking: Mapping[str, Any], entrants: Entrants, race: Race, views: _Views, budget: Budget) -> dict[str, Any]:
    """What the step says of its own run, times included."""
    entered = entrants.of
    return {
        "chosen": ranking["chosen"],
        "why": ranking["why"],
        "stopped": race.stopped,
        "rounds": len(race.rounds),
        "candidates": [
            {key: c[key] for key in ("name", "status", "probe", "reason")}
            | {"computed": entered[c["name"]].computed if c["name"] in entered else 0}
            for c in ranking["candidates"]
        ],
        "candidate_seconds": {name: round(one.seconds, 3) for name, one in entered.items()},
        "planned_seconds": round(race.planned / budget.speed, 1),
        "opening_seconds": round(entrants.opening, 3),
        "machine_flops": budget.speed,
        "engines": {name: one.engine for name, one in entered.items() if one.engine},
        "notes": [f"no views of {name}: {reason}" for name, reason in views.dropped.items()],
        "computed": sum(one.computed for one in entered.values()) + views.computed,
        "reused": sum(one.reused for one in entered.values()) + views.reused,
    }


def _nothing_left(race: Race, registry: Registry, modality: str, tried: Sequence[BackboneSpec]) -> str:
    reasons = "\n".join(f"  {name}: {reason}" for name, reason in sorted(race.dropped.items()))
    here = trial_backbones(registry, modality, tried)
    return f"no backbone could be used:\n{reasons}\ngive weights that are here: --backbone FOLDER" + (
        f"\nor, for a trial without network: --backbone {' or '.join(here)}" if here else ""
    )


def candidates(config: RunConfig, registry: Registry, modality: str, root: Path, device: str = "cpu") -> list[str]:
    """The names that compete: the user's (folders as paths that hold later), else those of the preset.

    device: cpu or cuda. A plugin that has no preset for GPUs has its CPU's taken.
    """
    catalogue = registry.backbones(modality)
    if config.select.backbones:
        known = {spec.name for spec in catalogue}  # a folder of the same name is ./NAME
        named = [
            name if name in known or split_view(name)[0] in known else _located(name, root)
            for name in config.select.backbones
        ]
        return list(dict.fromkeys(named))
    preset = config.select.preset
    for kind in dict.fromkeys((device, "cpu")):
        names = [spec.name for spec in catalogue if f"{kind}/{preset}" in spec.presets]
        if names:
            return names
    others = sorted({one.partition("/")[2] for spec in catalogue for one in spec.presets})
    raise UserError(
        f"no {modality} backbone is in the preset {preset!r}; name one: --backbone NAME or --backbone FOLDER"
        + (f", or set select.preset to {' or '.join(others)}" if others else "")
    )


def trial_backbones(registry: Registry, modality: str, tried: Sequence[BackboneSpec]) -> list[str]:
    """Names in the catalogue whose weights are on this machine, where some of those tried have none here."""
    names = {spec.name for spec in tried}
    if all(weights_here(spec) for spec in tried):
        return []
    return [spec.name for spec in registry.backbones(modality) if spec.name not in names and weights_here(spec)]


def _specs(requests: Sequence[str], registry: Registry, modality: str, root: Path) -> list[tuple[str, BackboneSpec]]:
    """The backbones of the names. Raises UserError that tells of every name that is none."""
    found, faults = [], []
    for name in requests:
        try:
            found.append((name, pinned(registry.backbone(located(name, root), modality), root)))
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n".join(faults))
    return found


def _located(name: str, root: Path) -> str:
    """A path as it can be found again: relative to the project where it lies inside, absolute otherwise."""
    path = Path(name).expanduser()
    for found in (root / path, path):
        if found.exists():
            full = found.resolve()
            inside = full.is_relative_to(root.resolve())
            return f"./{full.relative_to(root.resolve()).as_posix()}" if inside else str(full)
    whole, view = split_view(name)
    return f"{_located(whole, root)}#{view}" if view else name


def _distinct(specs: list[tuple[str, BackboneSpec]]) -> list[tuple[str, BackboneSpec]]:
    """Folders of one name keep their whole path as name, so that a ranking names each candidate once."""
    names = Counter(spec.name for _, spec in specs)
    return [(request, replace(spec, name=request) if names[spec.name] > 1 else spec) for request, spec in specs]
