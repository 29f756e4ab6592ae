"""What MLflow is told of a run, from the files that `evaluate` leaves; without mlflow."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tl_mlflow.revision import code_revision, project_folder

if TYPE_CHECKING:
    from tl_core import Workspace

REPORT_TAG = "report_md5"  # by which a registered version finds the run that it came out of
FILES = ("report.html", "report.json", "model_card.md", "metrics.json")
STEPS = ("version", "select", "extract", "tune", "evaluate")
EPOCH = ("loss", "train", "val_loss", "val", "lr")
STRENGTH = ("strength", "train", "val", "val_loss")
POINT = ("value", "low", "high")


@dataclass(frozen=True)
class Point:
    """A metric's value at a step: an epoch of a curve, rows of a learning curve; 0 where there is just one."""

    name: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class Record:
    """An MLflow run to be. about: a text in Markdown; started: milliseconds since 1970; files: paths to upload."""

    name: str
    about: str
    started: int
    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: tuple[Point, ...]
    files: tuple[str, ...]

    def dump(self) -> str:
        """As JSON, for the process that sends it."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Record:
        """What `dump` wrote."""
        value = json.loads(text)
        points = tuple(Point(**point) for point in value["points"])
        return cls(**{**value, "points": points, "files": tuple(value["files"])})


def record_of(workspace: Workspace, outputs: Mapping[str, Any]) -> Record:
    """The run that has just been evaluated. outputs: the small results of `evaluate`."""
    folder = workspace.step("evaluate")
    told = (folder / "report.json").read_bytes()
    report = json.loads(told)
    facts, summary = report["facts"], report["summary"]
    seconds = {step: _seconds(workspace.run_file(step)) for step in STEPS}
    points = [
        *metrics(outputs["metrics"]),
        *curves(facts["tuning"] or {}),
        *(Point(f"seconds/{step}", value) for step, value in seconds.items() if value is not None),
    ]
    return Record(
        name=f"{summary['backbone']} {summary['strategy']}",
        about=f"{summary['sentence']}\n\n{summary['meaning']}",
        started=round(1000 * datetime.fromisoformat(outputs["started"]).timestamp()),
        params=params(yaml.safe_load(facts["config"]) or {}),
        tags=tags(workspace.root, facts, summary) | {"host": outputs["host"], REPORT_TAG: _md5(told)},
        points=tuple(point for point in points if math.isfinite(point.value)),
        files=tuple(str((folder / name).resolve()) for name in FILES if (folder / name).is_file()),
    )


def params(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The config by dotted key, each value as params.yaml spells it."""
    found: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= params(value, f"{name}.")
        else:
            found[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found


def tags(root: Path, facts: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, str]:
    """What runs are found and grouped by."""
    data, backbone, revision = facts["data"], facts["backbone"], code_revision(root)
    found = {
        "project": project_folder(root).name,
        "modality": summary["modality"],
        "task": facts["evaluation"]["task"],
        "data_version": data["version"],
        "backbone": backbone["name"],
        "backbone_fingerprint": backbone["fingerprint"],
        "strategy": summary["strategy"],
        "watch": facts["evaluation"]["watch"],
        "verdict": summary["headline"],
        "code_revision": revision and str(revision),
        "mlflow.source.git.commit": revision and revision.commit,  # a column of MLflow's table
        **{f"version.{name}": number for name, number in facts["provenance"].items()},
    }
    return {name: value for name, value in found.items() if value}


def metrics(flat: Mapping[str, float]) -> Iterator[Point]:
    """metrics.json with the ends of each interval as `NAME.low` and `NAME.high`."""
    for name, value in flat.items():
        base, _, end = name.rpartition("_")
        yield Point(f"{base}.{end}" if end in ("low", "high") and base in flat else name, float(value))


def curves(tuning: Mapping[str, Any]) -> Iterator[Point]:
    """How training went, under the names of the files in plots/: over epochs, strengths, rows and trials."""
    history = (tuning.get("finetune") or {}).get("history", ())
    yield from _series("history", EPOCH, ((row["epoch"], row) for row in history))
    path = (tuning.get("probe") or {}).get("path", ())
    yield from _series("path", STRENGTH, enumerate(path))
    rows = (tuning.get("curve") or {}).get("points", ())
    yield from _series("learning_curve", POINT, ((row["rows"], row) for row in rows))
    losses = (tuning.get("contrastive") or {}).get("losses", ())
    yield from _series("contrastive", ("loss",), ((epoch, {"loss": loss}) for epoch, loss in enumerate(losses, 1)))
    best = (tuning.get("search") or {}).get("values", ())
    yield from _series("search", ("best",), ((trial, {"best": value}) for trial, value in enumerate(best, 1)))


def _series(
    name: str, columns: Iterable[str], rows: Iterable[tuple[int, Mapping[str, float | None]]]
) -> Iterator[Point]:
    for step, row in rows:
        for column in columns:
            value = row.get(column)
            if value is not None:
                yield Point(f"{name}/{column}", float(value), step)


def _seconds(run_file: Path) -> float | None:
    """What the step that made this model's files took; None where another machine or an earlier run made them."""
    if not run_file.is_file():
        return None
    return float(json.loads(run_file.read_text(encoding="utf-8"))["seconds"])


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
