"""A finished run as comparisons read it: its facts, its manifest and what it said of the test rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tl_core.errors import FormatError, UserError
from tl_core.manifest import Manifest
from tl_core.report.facts import ReportFacts
from tl_core.types import Targets


@dataclass(frozen=True)
class ComparedRun:
    """A finished run's own files. name: as the user named it."""

    name: str
    facts: ReportFacts
    manifest: Manifest
    predictions: pa.Table

    @classmethod
    def load(cls, name: str, artifacts: Path) -> ComparedRun:
        """Read the outputs of `version` and `evaluate`. Raises FormatError, or UserError where they don't fit."""
        facts = ReportFacts.load(artifacts / "evaluate" / "report.json")
        manifest = Manifest.load(artifacts / "version" / "manifest.parquet", artifacts.parent)
        path = artifacts / "evaluate" / "predictions.parquet"
        try:
            predictions = pq.read_table(path)
            rows, ids = predictions["row"].to_numpy(), predictions["id"].to_pylist()
        except (OSError, pa.ArrowException, KeyError) as error:
            raise FormatError(f"no predictions of {name} in {path}; run `tl evaluate` there") from error
        stored = manifest.table["id"].to_pylist()
        if facts.data.version != manifest.data_version or any(
            not 0 <= row < len(stored) or stored[row] != id_ for row, id_ in zip(rows.tolist(), ids)
        ):
            raise UserError(f"the result of {name} is of another version of its data; run `tl evaluate` there first")
        return cls(name, facts, manifest, predictions)

    def said(self, lines: pa.Table, targets: Targets) -> npt.NDArray[np.float64]:
        """The run's predictions in lines of its table, [N, C] over these classes or values [N].

        A class that the run does not know has probability 0.
        """
        if targets.task == "regression":
            return np.asarray(lines["predicted"].to_numpy(), np.float64)
        known = set(self.manifest.targets.classes)
        nothing = np.zeros(len(lines))
        columns = [lines[f"p_{name}"].to_numpy() if name in known else nothing for name in targets.classes]
        values = np.stack(columns, axis=1).astype(np.float64)
        if targets.task == "multiclass":
            # stored with 6 digits, which may tie the decided class with another one
            place = {name: c for c, name in enumerate(targets.classes)}
            decided = np.asarray([place[name] for name in lines["predicted"].to_pylist()], np.int64)
            values[np.arange(len(values)), decided] = np.nextafter(values.max(axis=1), 2)
        return values


def joint_targets(first: ComparedRun, second: ComparedRun) -> Targets:
    """The classes of both runs, the first one's in front."""
    one, other = first.manifest.targets, second.manifest.targets
    return Targets(one.task, tuple(dict.fromkeys((*one.classes, *other.classes))))
