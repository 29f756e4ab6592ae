"""What a version of the model says of itself: the data, code, config and bytes that it is of, and how well it did."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tl_core.errors import FormatError, UserError
from tl_flows.bundles import digest_at
from tl_flows.git import commit_of

FORMAT_VERSION = 1
REPORT = "artifacts/evaluate/report.json"


@dataclass(frozen=True)
class Watched:
    """The watched metric on the test rows, by the name that people read, with its interval."""

    name: str
    value: float
    low: float
    high: float
    confidence: float
    n_test: int

    def describe(self) -> str:
        """`accuracy 0.912 (0.880 to 0.940)`."""
        return f"{self.name} {self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class VersionFacts:
    """The facts in a version's tag.

    data_version: the manifest's; code_revision: the commit whose code made the model; config_digest: sha256 of the
    run's configuration; bundle: DVC's md5 of the tune step's output, which holds the model; test_set: hash of the rows
    that the decision was made on; decision: the gate's sentence; why: what made someone register it; report: md5 of the
    run's report.json, empty where an older tl registered it.
    """

    data_version: str
    code_revision: str
    config_digest: str
    bundle: str
    metric: Watched
    test_set: str | None = None
    decision: str = ""
    why: str = ""
    report: str = ""

    def as_json(self) -> dict[str, Any]:
        """The facts as a tag holds them."""
        return {"format": FORMAT_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, value: Any) -> VersionFacts | None:
        """The facts in a tag; None where someone registered it without any. Raises FormatError on a newer format."""
        from pydantic import TypeAdapter, ValidationError

        if not isinstance(value, dict) or not isinstance(value.get("format"), int):
            return None
        if value["format"] > FORMAT_VERSION:
            raise FormatError(
                f"the model registry has versions of format {value['format']}, this tl reads up to {FORMAT_VERSION}; "
                "update tl"
            )
        try:
            return TypeAdapter(VersionFacts).validate_python({k: v for k, v in value.items() if k != "format"})
        except ValidationError:
            return None


def facts_at(
    root: Path,
    revision: str,
    *,
    code_revision: str | None = None,
    test_set: str | None = None,
    decision: str = "",
    why: str = "",
) -> VersionFacts:
    """The facts of a project's run as a commit holds them.

    code_revision: where it is not the commit itself. Raises UserError where the commit holds no evaluated run of the
    project, or its report is not at hand.
    """
    from tl_flows.versioning import outputs_at

    commit = commit_of(root, revision)
    bundle = digest_at(root, commit)
    with TemporaryDirectory(prefix="tl-facts-") as scratch:
        outputs_at(root, commit, [REPORT], Path(scratch))
        told = (Path(scratch) / REPORT).read_bytes()
    try:
        report = json.loads(told)
        summary, facts = report["summary"], report["facts"]
        return VersionFacts(
            data_version=facts["data"]["version"],
            code_revision=code_revision or commit,
            config_digest=hashlib.sha256(facts["config"].encode()).hexdigest(),
            bundle=bundle,
            metric=Watched(
                summary["metric"], summary["value"], summary["low"], summary["high"],
                summary["confidence"], summary["n_test"],
            ),
            test_set=test_set,
            decision=decision,
            why=why,
            report=hashlib.md5(told, usedforsecurity=False).hexdigest(),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{REPORT} of commit {commit[:12]} can't be read ({type(error).__name__}); run `tl run` with this tl, "
            "commit dvc.lock and register that commit"
        ) from error
