"""Whether the diagnostics' 90% intervals hold the truth where rows are few, by simulation.

    OMP_NUM_THREADS=1 python -m benchmarks.evaluation.small_parts [--sets 400] [--only SETTING ...]
    python -m benchmarks.evaluation.small_parts --render

Subgroups of 20 to 50 rows, a score without leaked rows, scores of rows that are unlike the training rows, and numbers
of a calibrated model, each on made-up test rows whose truth is known. Results go to
benchmarks/results/evaluation_small_parts.{json,md} after each setting, and a setting that is there is not run again.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.selection.setting import RESULTS
from tl_core.diagnostics.calibration import calibration
from tl_core.diagnostics.leakage import leakage
from tl_core.diagnostics.subgroups import subgroups
from tl_core.diagnostics.unusual import unusual
from tl_core.evaluation import Interval
from tl_core.evaluation.bootstrap import Bools, Floats
from tl_core.reference import Reference
from tl_core.types import Targets
from tl_core.weights import read_json
from tl_core.workspace import write_json, write_text

PATH = RESULTS / "evaluation_small_parts.json"
RESAMPLES = 200
GROUP = 10  # rows of a group
WIDTH = 8  # of features
TWO, VALUE = Targets("multiclass", ("no", "yes")), Targets("regression")
Found = Mapping[str, tuple[Interval, float]]  # by what it is of: an interval, and the truth
Look = Callable[[np.random.Generator, int], Found]


def _answers(rng: np.random.Generator, right: Bools) -> tuple[Floats, Any]:
    """Predictions and truth of two classes, right where told."""
    truth = rng.integers(2, size=len(right))
    return np.eye(2)[np.where(right, truth, 1 - truth)], truth


def _softmax(z: Floats) -> Floats:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    found: Floats = e / e.sum(axis=1, keepdims=True)
    return found


def subgroup(rows: int, right: float, *, others: int = 250, grouped: bool = False) -> Look:
    """A value of so many rows, right so often, among others that are right in 8 of 10 cases.

    grouped: rows come in groups of 10, each with an accuracy of its own.
    """

    def look(rng: np.random.Generator, seed: int) -> Found:
        chance = np.repeat([right, 0.8], [rows, others])
        groups = np.arange(rows + others) // GROUP
        if grouped:
            own = rng.beta(8 * chance[::GROUP], 8 * (1 - chance[::GROUP]))
            chance = own[groups]
        said, truth = _answers(rng, rng.random(rows + others) < chance)
        values = ["few"] * rows + ["others"] * others
        found = subgroups(
            said, truth, TWO, values, "kind", resamples=RESAMPLES, seed=seed,
            groups=[str(g) for g in groups] if grouped else None,
        )  # fmt: skip
        return _of_few(found, right, right - 0.8)

    return look


def subgroup_of_values(rows: int) -> Look:
    """The same of numbers: errors of SD 0.6 in the value of few rows and of 0.4 in the others', truth of SD 1."""

    def look(rng: np.random.Generator, seed: int) -> Found:
        few = np.arange(rows + 250) < rows
        truth = rng.normal(size=len(few))
        said = truth + np.where(few, 0.6, 0.4) * rng.normal(size=len(few))
        values = np.where(few, "few", "others").tolist()
        found = subgroups(said, truth, VALUE, values, "kind", resamples=RESAMPLES, seed=seed)
        return _of_few(found, 1 - 0.36, 0.16 - 0.36)

    return look


def _of_few(found: Any, score: float, gap: float) -> Found:
    (line,) = (line for line in found.groups if line.name == "few")
    # a gap's interval holds together with that of its mirror image
    return {"score": (line.score, score), "gap, of two together": (line.gap, gap)}


def leaked(rows: int) -> Look:
    """Test rows of which 3 in 10 are in train as well: the model is right on 95% of these and on 75% of the others."""

    def look(rng: np.random.Generator, seed: int) -> Found:
        copied = rng.random(rows) < 0.3
        said, truth = _answers(rng, rng.random(rows) < np.where(copied, 0.95, 0.75))
        digests = [f"test {i}" for i in range(rows)] + [f"test {i}" if copied[i] else f"train {i}" for i in range(rows)]
        x = rng.normal(size=(rows, WIDTH))
        found = leakage(
            np.concatenate([x, np.where(copied[:, None], x, rng.normal(size=x.shape))]).astype(np.float32),
            said, np.concatenate([truth, truth]), TWO,
            rows=np.arange(2 * rows), ids=digests, digests=digests, splits=["test"] * rows + ["train"] * rows,
            resamples=RESAMPLES, seed=seed,
        )  # fmt: skip
        assert found is not None
        parts = {"all rows": found.score, "without leaked ones": found.clean, "what leaks add": found.cost}
        truths = (0.81, 0.75, 0.06)
        return {name: (part, true) for (name, part), true in zip(parts.items(), truths) if part is not None}

    return look


def strange(rows: int) -> Look:
    """Test rows of which 3 in 10 are far from the training rows: right in 5 of 10 cases, the others in 8 of 10."""
    x = np.random.default_rng(0).normal(size=(400, WIDTH))
    x[:, 0] += 8
    reference = Reference.of(x[:300].astype(np.float32), x[300:].astype(np.float32))

    def look(rng: np.random.Generator, seed: int) -> Found:
        far = rng.random(rows) < 0.3
        features = (x[rng.integers(300, size=rows)] * np.where(far, -1, 1)[:, None]).astype(np.float32)
        said, truth = _answers(rng, rng.random(rows) < np.where(far, 0.5, 0.8))
        ids = [str(i) for i in range(rows)]
        found = unusual(
            reference, features, said, truth, TWO, ids, range(rows), resamples=RESAMPLES, seed=seed
        )  # fmt: skip
        parts = {"share": found.rejected, "score, familiar": found.accepted, "score, unusual": found.refused}
        return {name: (part, true) for (name, part), true in zip(parts.items(), (0.3, 0.8, 0.5)) if part is not None}

    return look


def calibrated(rows: int) -> Look:
    """A calibrated model of five classes; the log loss and the Brier score are those that its probabilities expect."""
    targets = Targets("multiclass", tuple("abcde"))
    drawn = _softmax(2 * np.random.default_rng(1).normal(size=(400_000, 5)))
    log_loss = float(-(drawn * np.log(drawn)).sum(axis=1).mean())
    brier = float((drawn * (1 - drawn)).sum(axis=1).mean())

    def look(rng: np.random.Generator, seed: int) -> Found:
        p = _softmax(2 * rng.normal(size=(rows, 5)))
        truth = (p.cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)
        found = calibration(p, truth, targets, temperature=None, resamples=RESAMPLES, seed=seed)
        assert found is not None
        top = found.bins[-1]
        return {
            "error": (found.error, 0.0),
            "offset": (found.offset, 0.0),
            "log loss": (found.log_loss, log_loss),
            "Brier score": (found.brier, brier),
            "accuracy of the surest bin": (top.accuracy, top.confidence),
        }

    return look


SETTINGS: Mapping[str, Look] = {
    "subgroup of 20, right 70%": subgroup(20, 0.7),
    "subgroup of 30, right 70%": subgroup(30, 0.7),
    "subgroup of 50, right 70%": subgroup(50, 0.7),
    "subgroup of 20, right 90%": subgroup(20, 0.9),
    "subgroup of 50, right 90%": subgroup(50, 0.9),
    "subgroup of 5 groups of 10": subgroup(50, 0.7, grouped=True),
    "subgroup of 12 groups of 10": subgroup(120, 0.7, grouped=True),
    "subgroup of 20 numbers": subgroup_of_values(20),
    "subgroup of 50 numbers": subgroup_of_values(50),
    "50 rows, 15 of them leaked": leaked(50),
    "150 rows, 45 of them leaked": leaked(150),
    "50 rows, 15 of them unusual": strange(50),
    "150 rows, 45 of them unusual": strange(150),
    "50 rows, calibrated": calibrated(50),
    "150 rows, calibrated": calibrated(150),
}
"""By name; rows are means where they are drawn."""


def measured(name: str, look: Look, sets: int) -> dict[str, Any]:
    """By interval: how often it held the truth, and its mean width."""
    held: dict[str, list[bool]] = {}
    widths: dict[str, list[float]] = {}
    for number in range(sets):
        for what, (interval, true) in look(np.random.default_rng([zlib.crc32(name.encode()), number]), number).items():
            held.setdefault(what, []).append(interval.low <= true <= interval.high)
            widths.setdefault(what, []).append(interval.high - interval.low)
    return {
        "sets": sets,
        "intervals": {
            what: {"held": round(float(np.mean(held[what])), 4), "width": round(float(np.mean(widths[what])), 4)}
            for what in held
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=400, help="of each setting")
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS), help="measured anew")
    parser.add_argument("--render", action="store_true", help="write the page from the results; measure nothing")
    arguments = parser.parse_args()
    kept: dict[str, Any] = read_json(PATH) if PATH.is_file() else {}
    for name, look in SETTINGS.items() if not arguments.render else ():
        if name in arguments.only if arguments.only else name not in kept:
            kept[name] = measured(name, look, arguments.sets)
            write_json(PATH, kept)
            print(name, kept[name], flush=True)
    write_text(PATH.with_suffix(".md"), page({name: kept[name] for name in SETTINGS if name in kept}))


def page(kept: Mapping[str, Any]) -> str:
    """One table, Markdown."""
    lines = [
        "# Coverage of the diagnostics' intervals where rows are few",
        "",
        "Made by `python -m benchmarks.evaluation.small_parts`, whose docstring says how. Intervals are 90% ones; "
        "those of a subgroup's gap hold together for two values, so that one of them is to hold in 95% of the sets.",
        "",
        "| test rows | sets | interval of | held the truth | mean width |",
        "|---|---|---|---|---|",
    ]
    below = []
    for name, one in kept.items():
        for what, found in one["intervals"].items():
            lines.append(f"| {name} | {one['sets']} | {what} | {found['held']:.1%} | {found['width']:.3f} |")
            if found["held"] < 0.85:
                below.append(f"{name}, {what} ({found['held']:.1%})")
    return "\n".join([*lines, "", f"Below 85%: {'; '.join(below) or 'none'}."]) + "\n"


if __name__ == "__main__":
    main()
