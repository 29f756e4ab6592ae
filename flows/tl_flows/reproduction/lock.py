"""What dvc.lock records of a run: the inputs, parameters and outputs of each step."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tl_core.errors import UserError
from tl_core.workspace import STEPS
from tl_flows.git import GitError, git

LOCK = "dvc.lock"
OUTPUTS = "artifacts/"


@dataclass(frozen=True)
class StepRecord:
    """inputs: path -> hash of what is no step's output; params: dotted key -> JSON text; outputs: path -> hash."""

    inputs: Mapping[str, str]
    params: Mapping[str, str]
    outputs: Mapping[str, str]


def lock_at(root: Path, commit: str) -> dict[str, StepRecord]:
    """What a commit's dvc.lock records of the project, by step. Raises UserError where a step is not in it."""
    try:
        text = git(root, "show", f"{commit}:./{LOCK}")
    except GitError as error:
        raise UserError(
            f"commit {commit[:12]} holds no run of the project {root}: it has no {LOCK}; `tl run`, commit {LOCK}, and "
            "name that commit"
        ) from error
    return read_lock(text, f"{LOCK} of commit {commit[:12]}")


def read_lock(text: str, name: str) -> dict[str, StepRecord]:
    """What a dvc.lock records, by step. name: of the file, for faults. Raises UserError where a step is not in it."""
    try:
        stages = yaml.safe_load(text)["stages"]
        missing = [step for step in STEPS if step not in stages]
        if not missing:
            return {step: _record(stages[step]) for step in STEPS}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"unreadable {name} ({type(error).__name__}); `tl run` and commit it anew") from error
    raise UserError(f"{name} has no {', '.join(missing)}: the run had not ended; `tl run` and commit it anew")


def _record(stage: Mapping[str, Any]) -> StepRecord:
    inputs = {entry["path"]: _hash(entry) for entry in stage.get("deps", ())}
    params = (_flat(values, "") for values in (stage.get("params") or {}).values())
    return StepRecord(
        {path: value for path, value in inputs.items() if not path.startswith(OUTPUTS)},
        dict(pair for pairs in params for pair in pairs),
        {entry["path"]: _hash(entry) for entry in stage.get("outs", ())},
    )


def _hash(entry: Mapping[str, Any]) -> str:
    return str(entry.get("md5") or entry[entry["hash"]])


def _flat(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, json.dumps(value, ensure_ascii=False)
