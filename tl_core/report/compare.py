"""Two or more runs side by side: their metrics, the test rows that they share, and what was changed between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import yaml

from tl_core.errors import UserError
from tl_core.evaluation import ClassDifference, Interval, Paired, class_differences, paired
from tl_core.manifest import Changes
from tl_core.manifest import compare as compare_data
from tl_core.manifest.labels import encode_labels
from tl_core.report.compare_shift import DataShift, data_shift
from tl_core.report.compared_run import ComparedRun, joint_targets
from tl_core.report.facts import ReportFacts
from tl_core.types import Targets

FORMAT_VERSION = 1
MAX_MOVED = 200  # samples listed of each kind
RESAMPLES = 1000
NOT_SET = "not set"


@dataclass(frozen=True)
class RunColumn:
    """What stands over and in a run's column. metrics: on the run's own test rows."""

    name: str
    title: str
    backbone: str
    strategy: str
    data_version: str
    n_test: int
    metrics: Mapping[str, Interval]


@dataclass(frozen=True)
class Moved:
    """A shared test row that changed sides; of values: whose error changed most.

    change: `lost` (the reference alone is right, or nearer), `won` (the other alone is).
    """

    id: str
    label: str
    first: str
    second: str
    change: Literal["lost", "won"]


@dataclass(frozen=True)
class Changed:
    """A fact that is not the same in both runs."""

    key: str
    first: str
    second: str


@dataclass(frozen=True)
class Pair:
    """A run against the reference, on the test rows that both have: the same sample with the same label.

    rows: these; only_first, only_second: test rows that just one of them has; lost, won: how many changed sides, of
    which `moved` lists up to 200 each (none are counted for regression); data: from the reference's data to the run's;
    shift: whether the rows that one of them lacks are of another kind.
    """

    name: str
    rows: int
    only_first: int
    only_second: int
    result: Paired
    classes: tuple[ClassDifference, ...]
    lost: int
    won: int
    moved: tuple[Moved, ...]
    data: Changes
    shift: DataShift
    config: tuple[Changed, ...]
    made_of: tuple[Changed, ...]


@dataclass(frozen=True)
class Comparison:
    """Runs of one task, the first of which is the reference that the others are held against."""

    task: str
    watch: str
    confidence: float
    runs: tuple[RunColumn, ...]
    pairs: tuple[Pair, ...]

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values, with the format's version."""
        from pydantic import TypeAdapter

        return {"format": FORMAT_VERSION, **TypeAdapter(Comparison).dump_python(self, mode="json")}


def compare_runs(
    runs: Sequence[ComparedRun], *, stores: Sequence[Path] = (), resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """The first run against each other one; intervals have the coverage that the first was evaluated with.

    stores: folders of the feature stores to look for the runs' features in; nothing is computed or written there.
    Raises UserError with all pairs that can't be compared.
    """
    reference, *others = runs
    faults, rows = [], []
    for run in others:
        tasks = [one.manifest.targets.task for one in (reference, run)]
        shared = _shared(reference, run) if tasks[0] == tasks[1] else np.zeros((0, 2), np.int64)
        rows.append(shared)
        if tasks[0] != tasks[1]:
            faults.append(
                f"{reference.name} is a {tasks[0]} run and {run.name} a {tasks[1]} one; compare runs of one task"
            )
        elif not len(shared):
            faults.append(
                f"{reference.name} and {run.name} share no test row (the same sample with the same label); evaluate "
                "both on versions of the same data, with the same seed and data.test_fraction"
            )
    if faults:
        raise UserError("\n".join(faults))
    evaluation = reference.facts.evaluation
    return Comparison(
        task=evaluation.task,
        watch=evaluation.watch,
        confidence=evaluation.confidence,
        runs=tuple(_column(run) for run in runs),
        pairs=tuple(
            _pair(reference, run, found, stores, evaluation.confidence, resamples, seed)
            for run, found in zip(others, rows)
        ),
    )


def _column(run: ComparedRun) -> RunColumn:
    facts = run.facts
    return RunColumn(
        name=run.name,
        title=facts.title,
        backbone=facts.backbone.name,
        strategy=facts.strategy,
        data_version=facts.data.version,
        n_test=facts.evaluation.n_test,
        metrics=facts.evaluation.summary,
    )


def _pair(
    reference: ComparedRun,
    run: ComparedRun,
    shared: npt.NDArray[np.int64],
    stores: Sequence[Path],
    confidence: float,
    resamples: int,
    seed: int,
) -> Pair:
    targets = joint_targets(reference, run)
    tables = [one.predictions.take(pa.array(rows)) for one, rows in zip((reference, run), shared.T)]
    first, second = (one.said(table, targets) for table, one in zip(tables, (reference, run)))
    labels = tables[0]["label"].to_pylist()
    truth = encode_labels(labels, targets, reference.manifest.separator)
    draws: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    settings: dict[str, Any] = {**draws, "groups": reference.manifest.groups(tables[0]["row"].to_numpy())}
    lost, won = _sides(tables, targets, first, second, truth)
    return Pair(
        name=run.name,
        rows=len(shared),
        only_first=_usable(reference) - len(shared),
        only_second=_usable(run) - len(shared),
        result=paired(targets, first, second, truth, names=(reference.name, run.name), **settings),
        classes=class_differences(targets, first, second, truth, **settings),
        lost=len(lost),
        won=len(won),
        moved=tuple(_moved(tables, lost[:MAX_MOVED], "lost") + _moved(tables, won[:MAX_MOVED], "won")),
        data=compare_data(reference.manifest, run.manifest),
        shift=data_shift(reference, run, stores, **draws),
        config=_changed(_settings(reference.facts.config), _settings(run.facts.config)),
        made_of=_changed(_made_of(reference.facts), _made_of(run.facts)),
    )


def _usable(run: ComparedRun) -> int:
    return len(run.predictions) - int(run.predictions["predicted"].null_count)


def _shared(first: ComparedRun, second: ComparedRun) -> npt.NDArray[np.int64]:
    """Positions of shared rows in both predictions tables, int64 [N, 2], in the first one's order."""
    inline = all(bool(np.all(run.manifest.table["inline"].to_numpy())) for run in (first, second))
    places = {key: position for position, key in _keys(second, inline)}
    found = [(position, places[key]) for position, key in _keys(first, inline) if key in places]
    return np.asarray(found, np.int64).reshape(-1, 2)


def _keys(run: ComparedRun, inline: bool) -> Iterator[tuple[int, tuple[object, ...]]]:
    """What makes a predicted row the same in another run; ids of table rows shift, so their text alone counts."""
    seen: Counter[tuple[object, ...]] = Counter()
    table = run.predictions
    digests = run.manifest.digests(table["row"].to_numpy())
    columns = (table[name].to_pylist() for name in ("id", "label", "predicted"))
    for position, (digest, id_, label, predicted) in enumerate(zip(digests, *columns)):
        if predicted is not None:
            key: tuple[object, ...] = (digest, label) if inline else (id_, digest, label)
            seen[key] += 1
            yield position, (*key, seen[key])


def _sides(
    tables: Sequence[pa.Table],
    targets: Targets,
    first: npt.NDArray[np.float64],
    second: npt.NDArray[np.float64],
    truth: npt.NDArray[np.generic],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows that only the first, and only the second gets right (of values: comes nearer), the clearest first."""
    if targets.task == "regression":
        values = truth.astype(np.float64)
        gain = np.abs(first - values) - np.abs(second - values)
        order = np.argsort(-np.abs(gain), kind="stable")
        return order[gain[order] < 0], order[gain[order] > 0]
    right = [table["correct"].to_numpy(zero_copy_only=False).astype(bool) for table in tables]
    sure = [table["probability"].to_numpy() for table in tables]
    lost, won = np.flatnonzero(right[0] & ~right[1]), np.flatnonzero(right[1] & ~right[0])
    # the surest of the wrong answers first: what the second newly gets wrong, what the first got wrong
    return lost[np.argsort(-sure[1][lost], kind="stable")], won[np.argsort(-sure[0][won], kind="stable")]


def _moved(tables: Sequence[pa.Table], rows: npt.NDArray[np.int64], change: Literal["lost", "won"]) -> list[Moved]:
    picked = [table.take(pa.array(rows)) for table in tables]
    columns = (picked[0]["id"], picked[0]["label"], picked[0]["predicted"], picked[1]["predicted"])
    return [
        Moved(id_, label, _text(before), _text(after), change)
        for id_, label, before, after in zip(*(column.to_pylist() for column in columns))
    ]


def _changed(first: Mapping[str, str], second: Mapping[str, str]) -> tuple[Changed, ...]:
    keys = dict.fromkeys((*first, *second))
    both = [(key, first.get(key, NOT_SET), second.get(key, NOT_SET)) for key in keys]
    return tuple(Changed(*one) for one in both if one[1] != one[2])


def _settings(config: str) -> dict[str, str]:
    """A run's configuration by dotted key."""

    def walk(value: Any, prefix: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                yield from walk(inner, f"{prefix}.{key}" if prefix else str(key))
        elif prefix:
            yield prefix, _text(value)

    return dict(walk(yaml.safe_load(config), ""))


def _made_of(facts: ReportFacts) -> dict[str, str]:
    """What the run's model and result come from, apart from data and configuration: backbone, strategy, versions."""
    backbone = facts.backbone
    made = {
        "backbone": backbone.name,
        "source": backbone.source,
        "revision": backbone.revision,
        "weights digest": backbone.digest,
        "fingerprint": backbone.fingerprint,
        "strategy": facts.strategy,
        **facts.provenance,
    }
    return {key: _text(value) for key, value in made.items() if value is not None}


def _text(value: Any) -> str:
    """A value as people write it in YAML."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
