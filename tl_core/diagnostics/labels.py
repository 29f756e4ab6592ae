"""Labels that look wrong, by what a probe says of rows that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tl_core.diagnostics.held_out import axes_of, dealt, held_out, learnable, tied
from tl_core.diagnostics.label_noise import LabelNoise, label_noise
from tl_core.diagnostics.results import LabelErrors, State, Suspect
from tl_core.evaluation import Interval
from tl_core.evaluation.bootstrap import Bools, Ints
from tl_core.types import Targets

FOLDS = 5
LEAST = 50  # rows
MOST_LISTED = 200  # suspects
MOST_NAMED = 5  # classes
KNOWN = 0.1  # of a class's rows must be given it by the probe, or it says nothing of labels of that class
SURE = 0.001  # share of wrong labels that must be sure before anyone is told to look for them
FEW = 0.02  # share of wrong labels that few data sets are without
CERTAIN = 1e-7  # probabilities are kept so far from 0 and 1


def label_errors(
    features: npt.NDArray[np.float32],
    truth: npt.NDArray[np.generic],
    targets: Targets,
    strength: float,
    *,
    rows: Ints,
    ids: Sequence[str],
    digests: Sequence[str],
    splits: Sequence[str],
    groups: Sequence[str] | None = None,
    confidence: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
) -> LabelErrors | None:
    """Which labels contradict a cross-validated probe more than its own errors explain, and how many are wrong.

    features: float32 [N, D], truth and all else of the rows of all splits; rows: their numbers in the manifest;
    digests: of their content; strength: the probe's total L2 penalty. Copies and groups share a fold and are resampled
    whole. A label is a suspect where it is more likely wrong than right, given how many are wrong at all (see
    label_noise()). Of several labels a row may have, each counts on its own. Rows whose class occurs in no other fold
    are not judged; classes that the probe hardly ever gives to their own rows are named, and where they have many rows
    nothing is called fine. None for values, which have no class, and where fewer than 50 rows are left.
    """
    if targets.task == "regression" or targets.outputs < 2 or len(truth) < LEAST:
        return None
    units = tied(digests, groups)
    fold = dealt(truth, targets, FOLDS, seed, units, grouped=groups is not None)
    judged = np.flatnonzero(learnable(truth, targets, fold))
    if fold.max() == 0 or len(judged) < LEAST:
        return None
    said = held_out(axes_of(features), truth, targets, fold, strength)[judged].clip(CERTAIN, 1 - CERTAIN)
    labels = truth[judged]
    units = np.unique(units[judged], return_inverse=True)[1].astype(np.int64)
    if targets.task == "multiclass":
        usual = np.bincount(labels, minlength=targets.outputs)[None] / len(labels)
        noise = label_noise(np.log(said), _log(usual), labels.astype(np.int64), units, confidence, resamples, seed)
        told = np.eye(targets.outputs, dtype=bool)[said.argmax(axis=1)]
        quality, hits = noise.right, float((said.argmax(axis=1) == labels).mean())
        marks = np.eye(targets.outputs, dtype=bool)[labels]
        given = [targets.classes[c] for c in labels]
        suggested = [targets.classes[c] for c in _without(said, labels.astype(np.int64)).argmax(axis=1)]
    else:
        marks = labels.astype(np.float64) > 0.5  # [N, C]
        noise = _marks_noise(said, marks, units, confidence, resamples, seed)
        right = noise.right.reshape(marks.shape)
        told = said > 0.5
        quality, hits = right.min(axis=1), float((told == marks).mean())
        given, suggested = _named(marks, targets), _named(marks ^ (right < 0.5), targets)
    blind = np.flatnonzero((told & marks).sum(axis=0) < KNOWN * marks.sum(axis=0))
    state = _state(noise.share, float(marks[:, blind].any(axis=1).mean()))
    # where nothing is sure, the likeliest share may be anything, and whom it accuses means nothing
    suspects = np.flatnonzero(quality < 0.5) if state != "unclear" else np.empty(0, np.int64)
    listed = suspects[np.argsort(quality[suspects], kind="stable")][:MOST_LISTED]
    return LabelErrors(
        state=state,
        text=_text(state, noise.share, targets, labels.size, len(suspects), hits, confidence)
        + _untold([targets.classes[c] for c in blind]),
        rows=len(judged),
        found=len(suspects),
        share=noise.share,
        suspects=tuple(
            Suspect(
                row=int(rows[judged[i]]),
                id=ids[judged[i]],
                split=splits[judged[i]],
                given=given[i],
                suggested=suggested[i],
                quality=round(float(quality[i]), 6),
            )
            for i in listed.tolist()
        ),
    )


def _without(said: npt.NDArray[np.float32], labels: Ints) -> npt.NDArray[np.float32]:
    """Probabilities of all classes but the given one."""
    others = said.copy()
    others[np.arange(len(labels)), labels] = -1
    return others


def _marks_noise(
    said: npt.NDArray[np.float32],
    marks: Bools,
    units: Ints,
    confidence: float,
    resamples: int,
    seed: int,
) -> LabelNoise:
    """Every label of every row as a question of its own, to be answered by yes or no."""
    rows, width = marks.shape
    logits, usual = (
        _log(np.stack([1 - yes, yes], axis=-1)) for yes in (said.reshape(-1), np.tile(marks.mean(axis=0), rows))
    )
    given = marks.reshape(-1).astype(np.int64)
    return label_noise(logits, usual, given, np.repeat(units, width), confidence, resamples, seed)


def _log(probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    return np.asarray(np.log(probabilities.clip(CERTAIN, 1 - CERTAIN)), np.float32)


def _named(marks: Bools, targets: Targets) -> list[str]:
    return [", ".join(targets.classes[c] for c in np.flatnonzero(row)) or "none" for row in marks]


def _state(share: Interval, blind: float) -> State:
    """blind: the share of rows of whose labels nothing can be said."""
    if share.low > SURE:
        return "warn"
    return "ok" if max(share.high, blind) <= FEW else "unclear"


def _untold(blind: Sequence[str]) -> str:
    if not blind:
        return ""
    named = ", ".join(blind[:MOST_NAMED]) + (f" and {len(blind) - MOST_NAMED:,} more" * (len(blind) > MOST_NAMED))
    which = "that label" if len(blind) == 1 else "those labels"
    return f" The probe does not know {named}: it says nothing of {which}."


def _text(
    state: State, share: Interval, targets: Targets, labels: int, found: int, hits: float, confidence: float
) -> str:
    what = f"{labels:,} labels" if targets.task == "multiclass" else f"{labels:,} answers, one for each row and label,"
    if state == "warn":
        return (
            f"About {share.value:.1%} of {what} look wrong ({confidence:.0%} interval {share.low:.1%} to "
            f"{share.high:.1%}); {found:,} {'row is' if found == 1 else 'rows are'} more likely wrong than right. Some "
            "may be right and unusual: look before you change them."
        )
    few = f" {found:,} {'looks' if found == 1 else 'look'} suspicious." if found else ""
    if state == "ok":
        return (
            f"No sign of many wrong labels: at most {share.high:.1%} of {what} contradict a probe where it is sure "
            f"({confidence:.0%} interval from {share.low:.1%}).{few}"
        )
    return (
        f"Can't tell wrong labels from hard samples: between {share.low:.1%} and {share.high:.1%} of {what} may be "
        f"wrong ({confidence:.0%} interval). The probe that judges them agrees with {hits:.0%} of them."
    )
