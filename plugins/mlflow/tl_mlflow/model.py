"""What MLflow is told of a model's registry, from what the hook `tl_registry_changed` is given; without mlflow."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

TAG = "tl."  # in front of the tags' names: others may be the user's
LONGEST = 5000  # letters in a tag or a description, which is what MLflow's database has room for
CUT = " ..."
FACTS = ("bundle", "data_version", "code_revision", "config_digest", "test_set", "decision", "why")
METRIC = {"name": "metric", "value": "value", "low": "low", "high": "high", "n_test": "n_test"}


@dataclass(frozen=True)
class ModelVersion:
    """A version of tl in MLflow's terms.

    name: `v3`; source: where its model is got from; report: the tag REPORT_TAG of its run, empty where not known.
    """

    name: str
    commit: str
    source: str
    about: str
    report: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Model:
    """A registered model to be. aliases: each with the name of its version, None where no version has it."""

    name: str
    about: str
    tags: Mapping[str, str]
    versions: tuple[ModelVersion, ...]
    aliases: Mapping[str, str | None]

    def dump(self) -> str:
        """As JSON, for the process that sends it."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Model:
        """What `dump` wrote."""
        value = json.loads(text)
        return cls(**{**value, "versions": tuple(ModelVersion(**version) for version in value["versions"])})


def model_of(registry: Mapping[str, Any]) -> Model:
    """A registry in MLflow's terms."""
    return Model(
        name=model_name(registry["name"]),
        about="A mirror of the registry that tl keeps as git tags, which alone says what serves. "
        f"Repository: {registry['repository']}",
        tags=_tags({"model": registry["model"], "history": registry["history_id"]}),
        versions=tuple(_version(version, registry) for version in registry["versions"]),
        aliases=registry["aliases"],
    )


def model_name(name: str) -> str:
    """A folder's name as MLflow takes it: what it or its searches can't have in a name is replaced."""
    return re.sub(r"[^\w .+-]", "-", name).strip(" .") or "model"


def source(registry: Mapping[str, Any], tag: str) -> str:
    """Where a version's model is, as `dvc get` is told it: `dvc:///PATH?repo=REPOSITORY&rev=TAG`.

    No path of this machine and no `file:` address: MLflow's server refuses those, which it would look for on its own.
    """
    repository, revision = (quote(part, safe="") for part in (registry["repository"], tag))
    return f"dvc:///{quote(registry['path'])}?repo={repository}&rev={revision}"


def _version(version: Mapping[str, Any], registry: Mapping[str, Any]) -> ModelVersion:
    facts = version["facts"] or {}
    metric = facts.get("metric") or {}
    tags = {"version": version["name"], "tag": version["tag"], "commit": version["commit"]}
    tags |= {"registered": version["time"], "by": version["by"]}
    tags |= {key: facts.get(key) for key in FACTS}
    tags |= {key: metric.get(name) for name, key in METRIC.items()}
    return ModelVersion(
        name=version["name"],
        commit=version["commit"],
        source=source(registry, version["tag"]),
        about=_cut("\n\n".join(_lines(version))),
        report=facts.get("report") or "",
        tags=_tags(tags),
    )


def _lines(version: Mapping[str, Any]) -> Iterator[str]:
    """What its tag says, then what became of it, the newest first: where there is no room for all, the oldest go."""
    yield version["said"]
    for event in reversed(version["history"]):
        time = event["time"][:16].replace("T", " ")
        instead = f" instead of {event['was']}" if event["was"] else ""
        why = f": {event['why']}" if event["why"] else ""
        yield f"{time} UTC, {event['kind']}: {event['alias']}{instead}, by {event['by']}{why}"


def _tags(values: Mapping[str, Any]) -> dict[str, str]:
    return {f"{TAG}{key}": _cut(str(value)) for key, value in values.items() if value not in (None, "")}


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - len(CUT)] + CUT
