"""A frozen test set: which contents it holds, with which labels, as one file that keeps them in the test split."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast, get_args

from tl_core.errors import FormatError
from tl_core.types import Task
from tl_core.workspace import write_text

FORMAT_VERSION = 1


@dataclass(frozen=True)
class TestSet:
    """Contents that models are judged on, the same ones from one retraining to the next.

    version: counts from 1; classes: those that occur among its labels, in index order; rows: (digest, label) of each
    content, by digest, the label as the manifest writes it.
    """

    __test__: ClassVar[bool] = False  # pytest takes classes of such a name for tests

    version: int
    task: Task
    classes: tuple[str, ...]
    rows: tuple[tuple[str, str], ...]

    @cached_property
    def hash(self) -> str:
        """sha256 hex over task, classes and all rows: what is in it, whichever version it calls itself."""
        lines = [json.dumps([self.task, self.classes]), *(json.dumps(row) for row in self.rows)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @cached_property
    def labels(self) -> dict[str, str]:
        """Its labels by digest."""
        return dict(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def save(self, path: Path) -> None:
        """Write it as JSON with a line for each row, whole or not at all; the same set gives the same bytes."""
        facts = {
            "format": FORMAT_VERSION,
            "version": self.version,
            "task": self.task,
            "classes": self.classes,
            "sha256": self.hash,
        }
        head = ",\n".join(f'"{key}": {json.dumps(value, ensure_ascii=False)}' for key, value in facts.items())
        rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in self.rows)
        write_text(path, f'{{\n{head},\n"rows": [\n{rows}\n]\n}}\n')

    @classmethod
    def load(cls, path: Path) -> TestSet:
        """Read it. Raises FormatError where it is missing, damaged, edited by hand or of a newer format."""
        try:
            facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if int(facts["format"]) > FORMAT_VERSION:
                raise FormatError(
                    f"the test set {path} has format {facts['format']}, this tl reads up to {FORMAT_VERSION}; update tl"
                )
            if facts["task"] not in get_args(Task):
                raise ValueError(facts["task"])
            rows = tuple((str(digest), str(label)) for digest, label in facts["rows"])
            found = cls(int(facts["version"]), cast(Task, facts["task"]), tuple(facts["classes"]), rows)
        except FileNotFoundError as error:
            raise FormatError(
                f"no test set at {path}, which data.holdout names; fetch it (git, `dvc pull`), or set data.holdout to "
                "null where none has been frozen yet"
            ) from error
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path} is no test set or damaged; fetch it again (git, `dvc pull`)") from error
        if found.hash != facts.get("sha256") or found.rows != tuple(sorted(found.labels.items())):
            raise FormatError(
                f"{path} does not hold the rows that it was frozen with; fetch it again (git, `dvc pull`)"
            )
        return found
