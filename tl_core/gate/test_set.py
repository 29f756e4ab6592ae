"""Which rows of a version of the data are those of the frozen test set, and when it has to be frozen anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tl_core.errors import UserError
from tl_core.manifest import Manifest, TestSet
from tl_core.manifest.labels import parse_number, split_label
from tl_core.types import Task

Rows = np.ndarray


@dataclass(frozen=True, eq=False)
class Match:
    """A test set against a version of the data, each content counted once.

    present: int64, manifest rows with a content of the set and its label; relabelled: with its content and another
    label, or several; added: test rows that the set lacks; gone, quarantined: digests of the set that the data lack, or
    have only in unusable rows; due: why the set has to be frozen anew, in sentences, none where it has not.
    """

    present: Rows
    relabelled: Rows
    added: Rows
    gone: tuple[str, ...]
    quarantined: tuple[str, ...]
    due: tuple[str, ...]


def freeze(manifest: Manifest, version: int = 1) -> TestSet:
    """The usable test rows as a test set; a content with several labels, in whichever splits, is left out.

    Raises UserError where there is none.
    """
    contents = _contents(manifest, manifest.rows())
    of_test = ((digest, contents[digest][1]) for digest in set(manifest.digests(manifest.rows("test"))))
    rows = tuple(sorted((digest, label) for digest, label in of_test if label is not None))
    if not rows:
        raise UserError("no usable test row to freeze; add rows to the test split or set data.test_fraction")
    named = _classes(manifest, [label for _, label in rows])
    classes = tuple(name for name in manifest.targets.classes if name in named)
    return TestSet(version, manifest.targets.task, classes, rows)


def renewed(former: TestSet, manifest: Manifest) -> TestSet:
    """The data's test rows of today as the next version of a test set: what is gone leaves, new labels and rows join.

    Raises UserError as freeze() does.
    """
    return freeze(manifest, former.version + 1)


def match(test_set: TestSet, manifest: Manifest, *, renew_share: float) -> Match:
    """Where the set's contents are in a version of the data.

    renew_share: test rows that the set lacks, as a share of its own, past which it is to be frozen anew. Raises
    UserError where the data are of another task.
    """
    if test_set.task != manifest.targets.task:
        raise UserError(
            f"the test set was frozen for a {test_set.task} task and the data are {manifest.targets.task}: set "
            f"data.task to {test_set.task}, or data.holdout to null and freeze a new one"
        )
    contents = _contents(manifest, manifest.rows())
    bad = {line["digest"] for line in manifest.quarantined()}
    places: dict[str, list[int]] = {"present": [], "relabelled": []}
    lost: dict[str, list[str]] = {"gone": [], "quarantined": []}
    for digest, label in test_set.rows:
        if digest in contents:
            row, now = contents[digest]
            same = now is not None and _same(now, label, test_set.task)
            places["present" if same else "relabelled"].append(row)
        else:
            lost["quarantined" if digest in bad else "gone"].append(digest)
    held = test_set.labels
    of_test = _contents(manifest, manifest.rows("test"))
    added = {d: row for d, (row, _) in of_test.items() if d not in held and contents[d][1] is not None}
    found = Match(
        present=_sorted(places["present"]),
        relabelled=_sorted(places["relabelled"]),
        added=_sorted(list(added.values())),
        gone=tuple(lost["gone"]),
        quarantined=tuple(lost["quarantined"]),
        due=(),
    )
    lacking = _lacking(test_set, manifest, [of_test[digest][1] or "" for digest in added])
    return Match(**{**vars(found), "due": tuple(_due(found, len(test_set), lacking, renew_share))})


def _contents(manifest: Manifest, rows: Rows) -> dict[str, tuple[int, str | None]]:
    """The first row of each content and its label; None where its rows have several."""
    found: dict[str, tuple[int, str | None]] = {}
    labels = manifest.table["label"].take(rows).to_pylist()
    for row, digest, label in zip(rows.tolist(), manifest.digests(rows), labels):
        first = found.setdefault(digest, (row, label))
        if first[1] != label:
            found[digest] = (first[0], None)
    return found


def _same(now: str, then: str, task: Task) -> bool:
    """Whether two labels say the same; numbers may be written in several ways."""
    return now == then or (task == "regression" and parse_number(now) == parse_number(then))


def _classes(manifest: Manifest, labels: list[str]) -> set[str]:
    """Classes that occur among labels; none of numbers."""
    if manifest.targets.task == "regression":
        return set()
    return {name for label in set(labels) for name in split_label(label, manifest.targets.task, manifest.separator)}


def _lacking(test_set: TestSet, manifest: Manifest, added: list[str]) -> list[str]:
    """Classes that test rows of today have and the set has not: only these would a new version bring."""
    return sorted(_classes(manifest, added) - set(test_set.classes))


def _due(found: Match, size: int, lacking: list[str], renew_share: float) -> Iterator[str]:
    for count, what in ((len(found.gone), "gone from the data"), (len(found.relabelled), "labelled otherwise now")):
        if count:
            yield f"{count:,} of its {size:,} rows {'is' if count == 1 else 'are'} {what}"
    if lacking:
        names = ", ".join(f"'{name}'" for name in lacking[:5]) + (" ..." if len(lacking) > 5 else "")
        yield f"it has no row of {'the class' if len(lacking) == 1 else 'the classes'} {names}, which the data have now"
    if len(found.added) > renew_share * size:
        yield (
            f"{len(found.added):,} test rows have come since it was frozen, more than {renew_share:.0%} of its "
            f"{size:,} (gate.renew_share)"
        )


def _sorted(rows: list[int]) -> Rows:
    return np.sort(np.array(rows, np.int64))
