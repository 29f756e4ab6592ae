"""What the gate judges by: the rows that both models were asked about, and what they answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from tl_core.errors import UserError
from tl_core.evaluation.bootstrap import Bools, Floats, Ints, Numbers
from tl_core.gate.test_set import Match, match
from tl_core.manifest import Manifest, TestSet
from tl_core.manifest.labels import encode_labels
from tl_core.types import Targets

if TYPE_CHECKING:
    from tl_core.training.seen import Seen


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model and what it says of the rows.

    digest: of its files; classes: those that it can name; predictions: probabilities [N, C] over the classes of the
    contest, or values [N]; milliseconds, megabytes: None where they were not measured.
    """

    name: str
    digest: str
    classes: tuple[str, ...]
    predictions: Numbers
    milliseconds: float | None = None
    megabytes: float | None = None


@dataclass(frozen=True, eq=False)
class Asked:
    """Rows of a version of the data that the gate looks at, each content once, [N].

    rows: in the manifest; truth: over the classes of `targets`, as `evaluate_predictions` takes it; groups: resampled
    whole; columns: values to compare results by; frozen: in the test set; newest: test rows that the champion's data
    lacked; former: in the test set that this one replaces; learned: in train or val of the data that a model was made
    from, or one that its training went on from: they count nowhere. set_match: where the rest of the test set is.
    """

    targets: Targets
    rows: Ints
    truth: npt.NDArray[np.generic]
    groups: tuple[str, ...] | None
    columns: Mapping[str, Sequence[str | None]]
    frozen: Bools
    newest: Bools
    former: Bools
    learned: Bools
    set_match: Match

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        test_set: TestSet,
        champion: Manifest | None,
        *,
        renew_share: float,
        former: TestSet | None = None,
        seen: Sequence[Seen] = (),
    ) -> Self:
        """The rows of `manifest`, the challenger's data, on which it is compared with a champion made from other data.

        champion: None for a first model. former: the test set that `test_set` replaces in this decision. seen: what the
        models' bundles say that their weights have seen (tl_core.bundle.seen_in), models before them included. Raises
        UserError where the tasks of data and test sets are not one.
        """
        if champion is not None and champion.targets.task != manifest.targets.task:
            raise UserError(
                f"the champion was made for a {champion.targets.task} task and the data are {manifest.targets.task}: "
                "two models of one task can be compared; set data.task, or start another project"
            )
        found = match(test_set, manifest, renew_share=renew_share)
        before = match(former, manifest, renew_share=renew_share).present if former is not None else found.present[:0]
        newest = found.added[:0]
        if champion is not None:
            test = np.union1d(found.added, found.present)
            known = set(champion.digests(np.arange(len(champion))))
            newest = test[[digest not in known for digest in manifest.digests(test)]]
        rows = np.union1d(np.union1d(found.present, newest), before).astype(np.int64)
        taught = {digest for data in (manifest, champion) if data is not None for digest in _taught(data)}
        learned = np.array([digest in taught for digest in manifest.digests(rows)], np.bool_)
        for weights in seen:  # of models before these, whose data need not be among the two
            learned |= weights.holds(manifest, rows)
        classes = (*manifest.targets.classes, *(champion.targets.classes if champion is not None else ()))
        targets = Targets(manifest.targets.task, tuple(dict.fromkeys(classes)))
        groups = manifest.groups(rows)
        return cls(
            targets=targets,
            rows=rows,
            truth=encode_labels(manifest.table["label"].take(rows).to_pylist(), targets, manifest.separator),
            groups=None if groups is None else tuple(groups),
            columns=manifest.attributes(rows),
            frozen=np.isin(rows, found.present),
            newest=np.isin(rows, newest),
            former=np.isin(rows, before),
            learned=learned,
            set_match=found,
        )


def placed(predictions: Numbers, classes: Sequence[str], targets: Targets) -> Numbers:
    """A model's predictions over the classes of a contest; one that it can't name has probability 0.

    Raises ValueError where it names a class that the contest has not.
    """
    if targets.task == "regression":
        return predictions
    wide: Floats = np.zeros((len(predictions), targets.outputs))
    wide[:, [targets.classes.index(name) for name in classes]] = predictions
    return wide


def _taught(data: Manifest) -> list[str]:
    """Contents that a model of these data may have learned from: validation chooses, and is trained on in the end."""
    return data.digests(np.concatenate([data.rows("train"), data.rows("val")]))
