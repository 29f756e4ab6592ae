"""Faults that were put into real sets on purpose, and how well the diagnostics find them.

    OMP_NUM_THREADS=1 python -m benchmarks.evaluation.planted [--data FOLDER] [--cache FOLDER] [--only SET ...]
    python -m benchmarks.evaluation.planted --render

FOLDER (default: $TL_SHARED_DATA or ../shared/data) holds datasets/ and weights/. Features and copies are kept in the
cache (default: .tl/benchmarks/evaluation); with these there it takes a few minutes of one core. Each set's results go
to benchmarks/results/evaluation_planted.{json,md} as soon as they are there; --render only writes the page.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.end_to_end import machine
from benchmarks.evaluation.material import SETS, Material, material
from benchmarks.evaluation.planted_model import distorted_temperature, shifted_group
from benchmarks.evaluation.planted_tables import page
from benchmarks.selection.setting import RESULTS, ROOT
from tl_core.diagnostics.group_split import group_split
from tl_core.diagnostics.held_out import axes_of, dealt, held_out, tied
from tl_core.diagnostics.labels import FOLDS, label_errors
from tl_core.diagnostics.near_copies import beyond_chance, near_copies, whitened
from tl_core.evaluation import Interval
from tl_core.evaluation.bootstrap import Bools, Floats, Ints
from tl_core.registry import load_registry
from tl_core.weights import read_json
from tl_core.workspace import write_json, write_text

FLIPPED = 0.05  # of the labels
COPIED = 0.02  # of the rows
DRAWS = 5
STRENGTH = 100.0  # of the probe: about what tuning finds on these sets
RESAMPLES = 300
PATH = RESULTS / "evaluation_planted.json"


def flipped_labels(of: Material) -> dict[str, Any]:
    """5% of the labels replaced by another class at random: ranking, suspects and share, over several draws.

    Beside what the diagnostics use stand the ranking by margin and the suspects and share of confident learning
    (Northcutt et al., JAIR 2021): thresholds are each class's mean self-confidence.
    """
    clean = _label_errors(of, of.truth)
    draws = []
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        wrong = np.zeros(len(of.truth), np.bool_)
        wrong[rng.permutation(len(wrong))[: round(FLIPPED * len(wrong))]] = True
        classes = of.targets.outputs
        truth = np.where(wrong, (of.truth + rng.integers(1, classes, len(wrong))) % classes, of.truth)
        found = _label_errors(of, truth)
        fold = dealt(truth, of.targets, FOLDS, 0, tied(of.digests), grouped=False)
        said = held_out(axes_of(of.features), truth, of.targets, fold, STRENGTH).astype(np.float64)
        own = said[np.arange(len(truth)), truth]
        others = said.copy()
        others[np.arange(len(truth)), truth] = -1
        worst = np.argsort(own, kind="stable")[: found.found]
        confident, share = _confident_learning(said, truth)
        draws.append(
            {
                "average_precision": _average_precision(own, wrong),
                "average_precision_margin": _average_precision(own - others.max(axis=1), wrong),
                "found": found.found,
                "precision": float(wrong[worst].mean()) if len(worst) else 0.0,
                "recall": float(wrong[worst].sum() / wrong.sum()),
                "share": found.share.value,
                "covers": float(found.share.low <= wrong.mean() <= found.share.high),
                "warned": float(found.state == "warn"),
                "confident_learning_precision": float(wrong[confident].mean()) if confident.any() else 0.0,
                "confident_learning_recall": float(wrong[confident].sum() / wrong.sum()),
                "confident_learning_share": share,
            }
        )
    fold = dealt(of.truth, of.targets, FOLDS, 0, tied(of.digests), grouped=False)
    said = held_out(axes_of(of.features), of.truth, of.targets, fold, STRENGTH).astype(np.float64)
    return _means(draws) | {
        "accuracy": float((said.argmax(axis=1) == of.truth).mean()),
        "clean_state": clean.state,
        "clean_share": _numbers(clean.share),
        "clean_found": clean.found,
        "clean_confident_learning_share": _confident_learning(said, of.truth)[1],
    }


def near_copies_across(of: Material) -> dict[str, Any]:
    """Near copies of 2% of the rows added to the test rows: what tells them from other test rows, over several draws.

    Pairs that the untouched set has already are counted as false, though many are real copies.
    """
    test, other = np.flatnonzero(of.splits == "test"), np.flatnonzero(of.splits != "test")
    count = min(len(of.copies), round(COPIED * len(of.truth)))
    digests = np.asarray(of.digests)
    own = np.isin(digests[test], digests[other])  # the same bytes: no question of features
    alone = near_copies(*_parts(whitened(of.features), test, other), own)
    draws: list[dict[str, float]] = []
    hits: dict[str, list[bool]] = {change: [] for change in dict.fromkeys(of.changes)}
    for seed in range(DRAWS):
        chosen = np.random.default_rng(seed).permutation(len(of.copies))[:count]
        together = np.concatenate([of.features, of.copies[chosen]])
        rows = np.concatenate([test, len(of.features) + np.arange(count)])
        planted = np.arange(len(rows)) >= len(test)
        found = near_copies(*_parts(whitened(together), rows, other), np.concatenate([own, np.zeros(count, np.bool_)]))
        raw = together - together.mean(axis=0)
        raw /= np.linalg.norm(raw, axis=1, keepdims=True)
        plain = (raw[rows] @ raw[other].T).max(axis=1)
        others = ~planted & ~np.concatenate([own, np.zeros(count, np.bool_)])
        for place, change in zip(np.flatnonzero(planted), (of.changes[i] for i in chosen)):
            hits[change].append(bool(found.near[place]))
        draws.append(
            {
                "recall_at_1": _recall_at(found.similarity, planted, others),
                "recall_at_1_plain_cosine": _recall_at(plain, planted, others),
                "recall": float(found.near[planted].mean()),
                "others": float((found.near & others).sum()),
                "threshold": found.threshold if found.threshold is not None else 1.0,
                "warned": float(beyond_chance(found.chance[found.near])),
            }
        )
    return _means(draws) | {
        "planted": count,
        "test_rows": len(test),
        "untouched_found": int((alone.near & ~own).sum()),
        "recall_by_change": {change: round(float(np.mean(hit)), 4) for change, hit in hits.items()},
    }


def ignored_groups(of: Material) -> dict[str, Any] | None:
    """The probe's accuracy by a random split and by whole groups; None for sets without groups."""
    if of.groups is None:
        return None
    found = group_split(of.features, of.truth, of.groups, of.targets, STRENGTH)
    if found is None:
        return None
    parts = {"random": found.random, "grouped": found.grouped, "gap": found.gap}
    return {"groups": found.groups} | {name: _numbers(interval) for name, interval in parts.items()}


FAULTS: Mapping[str, Callable[[Material], dict[str, Any] | None]] = {
    "flipped_labels": flipped_labels,
    "near_copies": near_copies_across,
    "ignored_groups": ignored_groups,
    "shifted_group": lambda of: shifted_group(of, DRAWS),
    "distorted_temperature": lambda of: distorted_temperature(of, STRENGTH, DRAWS),
}
"""What is done to a set and measured, by its name in the results; planted_tables.TABLES has a table for each."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("TL_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--cache", type=Path, default=ROOT / ".tl" / "benchmarks" / "evaluation")
    parser.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--fault", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--render", action="store_true", help="write the page from the results; measure nothing")
    arguments = parser.parse_args()
    results: dict[str, Any] = read_json(PATH) if PATH.is_file() else {"sets": {}}
    if not arguments.render:
        registry = load_registry()
        for name in arguments.only:
            of = material(name, arguments.data.resolve(), arguments.cache.resolve(), registry)
            facts = results["sets"].setdefault(name, {})
            facts |= {"modality": of.modality, "backbone": of.backbone, "rows": len(of.truth)}
            for fault in arguments.fault:
                facts[fault] = FAULTS[fault](of)
            results |= {"machine": machine(), "draws": DRAWS, "flipped": FLIPPED, "copied": COPIED}
            write_json(PATH, results)
    write_text(PATH.with_suffix(".md"), page(results))
    print(page(results))


def _label_errors(of: Material, truth: Ints) -> Any:
    """What label_errors() says of these labels; rows are resampled singly, for all sets alike."""
    found = label_errors(
        of.features, truth, of.targets, STRENGTH,
        rows=np.arange(len(truth)), ids=of.ids, digests=of.digests, splits=of.splits.tolist(), resamples=RESAMPLES,
    )  # fmt: skip
    assert found is not None
    return found


def _confident_learning(said: Floats, truth: Ints) -> tuple[Bools, float]:
    """Off-diagonal rows of the confident joint, and the share of wrong labels by the calibrated joint."""
    classes = said.shape[1]
    thresholds = np.array([said[truth == c, c].mean() if (truth == c).any() else 2.0 for c in range(classes)])
    above = np.where(said >= thresholds, said, -1.0)
    guess, sure = above.argmax(axis=1), above.max(axis=1) >= 0
    joint = np.zeros((classes, classes))
    np.add.at(joint, (truth[sure], guess[sure]), 1)
    joint *= (np.bincount(truth, minlength=classes) / np.maximum(joint.sum(axis=1), 1))[:, None]
    return sure & (guess != truth), float(1 - np.trace(joint) / joint.sum())


def _average_precision(quality: Floats, wrong: Bools) -> float:
    ranked = wrong[np.argsort(quality, kind="stable")]
    return float((np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked].mean())


def _recall_at(similarity: Floats, planted: Bools, others: Bools) -> float:
    """Share of planted rows above the 99th percentile of the others."""
    return float((similarity[planted] > np.quantile(similarity[others], 0.99)).mean())


def _parts(space: Any, rows: Ints, others: Ints) -> tuple[Any, Any]:
    return space[rows], space[others]


def _means(draws: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(float(np.mean([draw[key] for draw in draws])), 4) for key in draws[0]}


def _numbers(interval: Interval) -> list[float]:
    return [round(number, 4) for number in (interval.value, interval.low, interval.high)]


if __name__ == "__main__":
    main()
