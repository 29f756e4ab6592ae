"""Whether rows that only one of two runs has are of another kind than the other run's, by features already stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tl_core.diagnostics.results import ShiftTest
from tl_core.diagnostics.shift import TwoSets, version_shift
from tl_core.extraction import DTYPES
from tl_core.manifest.labels import encode_labels
from tl_core.report.compared_run import ComparedRun, joint_targets
from tl_core.store import FeatureStore, MissingRows, Space
from tl_core.types import END, Targets

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class DataShift:
    """tests: rows that just one of two runs has against all rows of the other; notes: what was not compared, and why.

    Rows are told apart by content alone: of several with the same content the first counts. A test's cost is by the
    model of the run that has the rows, between those and the others among its test rows.
    """

    tests: tuple[ShiftTest, ...] = ()
    notes: tuple[str, ...] = ()


def data_shift(
    reference: ComparedRun, run: ComparedRun, stores: Sequence[Path], *, confidence: float, resamples: int, seed: int
) -> DataShift:
    """Compare the rows that only the run has, and those that only the reference has, with all rows of the other.

    By the pretrained backbone's embeddings, where one of the stores holds them. Empty where both runs have the same
    contents.
    """
    first, second = _Contents.of(reference), _Contents.of(run)
    sides = [(own, other) for own, other in ((second, first), (first, second)) if own.rows.keys() - other.rows.keys()]
    if not sides:
        return DataShift()
    if reference.facts.backbone.fingerprint != run.facts.backbone.fingerprint:
        return DataShift(notes=(_other_backbones(reference, run),))
    digests = sorted(first.rows.keys() | second.rows.keys())
    features = _Features.read(stores, run.facts.backbone.fingerprint, digests)
    targets = joint_targets(reference, run)
    sets = [two for own, other in sides if (two := _two_sets(own, other, features, targets))]
    tests = version_shift(sets, targets, confidence=confidence, resamples=resamples, seed=seed)
    missing = len(digests) - len(features.place)
    return DataShift(tests, (_missing(missing, len(digests), run.facts.backbone.name, stores),) if missing else ())


@dataclass(frozen=True)
class _Contents:
    """The contents that a run has. rows: by digest, the first usable row of its manifest with that content."""

    run: ComparedRun
    rows: dict[str, int]

    @classmethod
    def of(cls, run: ComparedRun) -> _Contents:
        rows = run.manifest.rows()[::-1]  # backwards, since the last of equal keys stays
        return cls(run, dict(zip(run.manifest.digests(rows), rows.tolist())))

    def places(self, digests: Sequence[str]) -> npt.NDArray[np.int64]:
        """The manifest rows of contents."""
        return np.array([self.rows[digest] for digest in digests], np.int64)

    def truth(self, digests: Sequence[str], targets: Targets) -> npt.NDArray[np.generic]:
        """Their labels, encoded over these classes."""
        manifest = self.run.manifest
        labels = manifest.table["label"].take(pa.array(self.places(digests))).to_pylist()
        return encode_labels(labels, targets, manifest.separator)

    def groups(self, digests: Sequence[str]) -> list[str]:
        """Their groups; each its own where the run knows of none."""
        return self.run.manifest.groups(self.places(digests)) or list(digests)


@dataclass(frozen=True, eq=False)
class _Features:
    """Embeddings that were found. place: by digest, the number of its row in `rows`, float32 [N, D]."""

    place: dict[str, int]
    rows: Rows

    @classmethod
    def read(cls, stores: Sequence[Path], fingerprint: str, digests: Sequence[str]) -> _Features:
        """Those of one precision class, of which most are there: a mixture would tell rows apart by itself."""
        found = [cls._of_space(stores, Space(fingerprint, END, precision), digests) for precision in DTYPES]
        return max(found, key=lambda one: len(one.place))

    @classmethod
    def _of_space(cls, stores: Sequence[Path], space: Space, digests: Sequence[str]) -> _Features:
        place: dict[str, int] = {}
        parts: list[Rows] = []
        for store in map(FeatureStore, stores):
            left = [digest for digest in digests if digest not in place]
            held, rows = _whole(store, space, [d for d, there in zip(left, store.present(space, left)) if there])
            if held:
                place |= {digest: len(place) + i for i, digest in enumerate(held)}
                parts.append(rows)
        return cls(place, np.concatenate(parts) if parts else np.zeros((0, 0), np.float32))

    def of(self, digests: Sequence[str]) -> Rows:
        """The rows of contents, in their order."""
        return self.rows[[self.place[digest] for digest in digests]]


def _whole(store: FeatureStore, space: Space, digests: list[str]) -> tuple[list[str], Rows]:
    """The rows that read well, float32 [N, D], and whose they are."""
    while True:
        try:
            return digests, store.read(space, digests)[0].astype(np.float32)
        except MissingRows as missing:  # damaged, or collected a moment ago
            gone = set(missing.digests)
            digests = [digest for digest in digests if digest not in gone]


def _two_sets(own: _Contents, other: _Contents, features: _Features, targets: Targets) -> TwoSets | None:
    """What only the first has against all that the second has, as far as there are features; None where one is empty.

    What both have is labelled, grouped and predicted as in the first.
    """
    mine, theirs = (sorted(one.rows.keys() & features.place.keys()) for one in (own, other))
    only = [digest for digest in mine if digest not in other.rows]
    shared = [digest for digest in theirs if digest in own.rows]
    rest = [digest for digest in theirs if digest not in own.rows]
    if not only or not theirs:
        return None
    known = only + shared
    position = dict(zip(own.places(known).tolist(), range(len(known))))
    table = own.run.predictions.filter(pc.is_valid(own.run.predictions["predicted"]))
    table = table.filter(pa.array([row in position for row in table["row"].to_pylist()], pa.bool_()))
    grouped = any(one.run.manifest.group_column is not None for one in (own, other))
    return TwoSets(
        f"rows that only {own.run.name} has against those of {other.run.name}",
        features.of(known + rest),
        np.arange(len(known) + len(rest)) < len(only),
        np.concatenate([own.truth(known, targets), other.truth(rest, targets)]),
        own.run.said(table, targets),
        np.array([position[row] for row in table["row"].to_pylist()], np.int64),
        own.groups(known) + other.groups(rest) if grouped else None,
    )


def _other_backbones(reference: ComparedRun, run: ComparedRun) -> str:
    names = [one.facts.backbone.name for one in (reference, run)]
    what = (
        f"{names[0]} has other weights or settings in {run.name} than in {reference.name}"
        if names[0] == names[1]
        else f"the features of {reference.name} are of {names[0]}, those of {run.name} of {names[1]}"
    )
    return (
        "Whether the rows that only one of them has are of another kind was not looked at: "
        f"{what}. Run both with one backbone (select.backbones) to compare their rows."
    )


def _missing(count: int, of: int, backbone: str, stores: Sequence[Path]) -> str:
    where = f"the feature store ({', '.join(map(str, stores))})" if stores else "a feature store that is known here"
    return (
        f"{count:,} of {of:,} rows were left out, because their features of {backbone} are not in {where}. "
        "`tl run` in the run's folder computes them, in the same extract.precision for both runs."
    )
