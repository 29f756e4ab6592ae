"""What is not the same in two versions of a model: metrics, data, configuration, what they are made of, code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from tl_core.errors import UserError
from tl_core.report.difference import Difference
from tl_flows.git import GitError, git
from tl_flows.registry_state import Version
from tl_flows.version_facts import REPORT

NOT_SET = "not set"
NO_CODE = (":(exclude,glob)**/dvc.lock", ":(exclude,glob)**/params.yaml", ":(exclude,glob)**/*.dvc",
           ":(exclude,glob)**/artifacts/**")  # fmt: skip


@dataclass(frozen=True)
class VersionDiff:
    """What two versions differ in.

    metrics: all that either has, also where equal; code: changed files, None where git lacks one of the commits.
    """

    first: str
    second: str
    metrics: tuple[Difference, ...]
    data: tuple[Difference, ...]
    config: tuple[Difference, ...]
    made_of: tuple[Difference, ...]
    code: tuple[str, ...] | None

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)


def version_diff(root: Path, first: Version, second: Version) -> VersionDiff:
    """What two versions of a project differ in, from the reports that their commits hold.

    Raises UserError, naming both, where a report is not at hand.
    """
    reports, faults = [], []
    for version in (first, second):
        try:
            reports.append(_report(root, version))
        except UserError as error:
            faults.append(f"{version.name}: {error}")
    if faults:
        raise UserError("\n".join(faults))
    one, other = reports
    return VersionDiff(
        first.name,
        second.name,
        metrics=_pairs(_metrics(one), _metrics(other), equal=True),
        data=_pairs(_data(one), _data(other)),
        config=_pairs(_config(one), _config(other)),
        made_of=_pairs(_made_of(one), _made_of(other)),
        code=_code(root, first, second),
    )


def _report(root: Path, version: Version) -> dict[str, Any]:
    from tl_flows.versioning import outputs_at

    with TemporaryDirectory(prefix="tl-diff-") as scratch:
        outputs_at(root, version.commit, [REPORT], Path(scratch))
        facts: dict[str, Any] = json.loads((Path(scratch) / REPORT).read_text(encoding="utf-8"))["facts"]
    return facts


def _pairs(first: Mapping[str, str], second: Mapping[str, str], *, equal: bool = False) -> tuple[Difference, ...]:
    both = (Difference(key, first.get(key, NOT_SET), second.get(key, NOT_SET)) for key in {**first, **second})
    return tuple(pair for pair in both if equal or pair.first != pair.second)


def _metrics(report: Mapping[str, Any]) -> dict[str, str]:
    evaluation = report["evaluation"]
    rows = {
        name.replace("_", " "): f"{one['value']:.4f} ({one['low']:.4f} to {one['high']:.4f})"
        for name, one in evaluation["summary"].items()
    }
    return {**rows, "test samples": f"{evaluation['n_test']:,}"}


def _data(report: Mapping[str, Any]) -> dict[str, str]:
    data = report["data"]
    rows = {f"{split} rows": f"{count:,}" for split, count in data.get("rows", {}).items()}
    classes = {
        f"{split} rows of {name}": f"{count:,}"
        for split, counts in data["counts"].items()
        for name, count in counts.items()
    }
    return {"version": data["version"], **rows, **classes, "bad samples": f"{len(data['quarantine']):,}"}


def _config(report: Mapping[str, Any]) -> dict[str, str]:
    def walk(value: Any, key: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                yield from walk(inner, f"{key}.{name}" if key else str(name))
        elif key:
            yield key, json.dumps(value, ensure_ascii=False)

    return dict(walk(yaml.safe_load(report["config"]), ""))


def _made_of(report: Mapping[str, Any]) -> dict[str, str]:
    backbone = report["backbone"]
    facts = {
        "backbone": backbone["name"], "revision": backbone.get("revision"), "fingerprint": backbone["fingerprint"],
        "strategy": report["strategy"], **report.get("provenance", {}),
    }  # fmt: skip
    return {key: str(value) for key, value in facts.items() if value is not None}


def _code(root: Path, first: Version, second: Version) -> tuple[str, ...] | None:
    """Files of the repository that differ between the commits whose code made the two, data and outputs aside."""
    commits = [version.facts.code_revision if version.facts else version.commit for version in (first, second)]
    try:
        return tuple(git(root, "diff", "--name-only", *commits, "--", ":/", *NO_CODE).splitlines())
    except GitError:  # a shallow clone lacks one of them
        return None
