"""What the calibration error says of models whose calibration is known, by simulation.

    OMP_NUM_THREADS=1 python -m benchmarks.evaluation.calibration [--sets 300] [--only SETTING ...]
    python -m benchmarks.evaluation.calibration --render

Logits of five classes are drawn, and labels from the probabilities that they stand for; what is judged are the logits
divided by 1 (calibrated), 0.5 or 0.7 (too sure), 1.4 or 2 (not sure enough). The true error is that of 400,000 rows.
In two settings answers hang together: rows of a group share their luck, and a row has five labels. Results go to
benchmarks/results/evaluation_calibration.{json,md} after each setting, and a setting that is there is not run again.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.selection.setting import RESULTS
from tl_core.diagnostics.calibration import calibration
from tl_core.diagnostics.results import Calibration
from tl_core.evaluation.bootstrap import Floats
from tl_core.intervals import wilson
from tl_core.types import Targets
from tl_core.weights import read_json
from tl_core.workspace import write_json, write_text

PATH = RESULTS / "evaluation_calibration.json"
ROWS = (50, 100, 300, 1000)
POPULATION = 400_000
RESAMPLES = 100
GROUP = 10  # rows of a group
NAMES = tuple("abcde")
Draw = Callable[[np.random.Generator, int], dict[str, Any]]


def classes(divisor: float, spread: float = 2.0) -> Draw:
    """One of five classes a row; what is said are the logits divided by the divisor."""

    def draw(rng: np.random.Generator, rows: int) -> dict[str, Any]:
        z = spread * rng.normal(size=(rows, len(NAMES)))
        truth = (_softmax(z).cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)
        return {"predictions": _softmax(z / divisor), "truth": truth, "targets": Targets("multiclass", NAMES)}

    return draw


def in_groups(rng: np.random.Generator, rows: int) -> dict[str, Any]:
    """As `classes`, calibrated; the rows of a group are drawn by numbers that hang together."""
    of = np.arange(rows) // GROUP
    z = 2 * rng.normal(size=(rows, len(NAMES)))
    shared, own = rng.normal(size=of[-1] + 1)[of], rng.normal(size=rows)
    luck = _normal_share(np.sqrt(0.3) * shared + np.sqrt(0.7) * own)  # even between 0 and 1
    truth = (np.sort(_softmax(z), axis=1)[:, ::-1].cumsum(axis=1) > luck[:, None]).argmax(axis=1)
    order = np.argsort(-z, axis=1)  # lucky rows are of the likeliest class
    return {
        "predictions": _softmax(z), "truth": order[np.arange(rows), truth], "targets": Targets("multiclass", NAMES),
        "groups": [f"g{number}" for number in of],
    }  # fmt: skip


def labels(rng: np.random.Generator, rows: int) -> dict[str, Any]:
    """Five labels a row, calibrated; those of a row are drawn by numbers that hang together."""
    z = 2 * rng.normal(size=(rows, len(NAMES)))
    luck = _normal_share(np.sqrt(0.3) * rng.normal(size=(rows, 1)) + np.sqrt(0.7) * rng.normal(size=z.shape))
    p = 1 / (1 + np.exp(-z))
    return {"predictions": p, "truth": luck < p, "targets": Targets("multilabel", NAMES)}


SETTINGS: Mapping[str, Draw] = {
    "calibrated": classes(1.0),
    "calibrated, mostly sure": classes(1.0, spread=6.0),
    "calibrated, groups of 10": in_groups,
    "calibrated, five labels": labels,
    "divided by 0.5": classes(0.5),
    "divided by 0.7": classes(0.7),
    "divided by 1.4": classes(1.4),
    "divided by 2": classes(2.0),
}


def measured(name: str, draw: Draw, rows: int, sets: int, truth: tuple[float, float]) -> dict[str, float]:
    """Means over the sets, by what is in them; truth: the true error and offset."""
    found = []
    for number in range(sets):
        rng = np.random.default_rng([zlib.crc32(name.encode()), rows, number])
        said = _said(draw(rng, rows), number)
        found.append(
            {
                "plain": plain_error(said),
                "error": said.error.value,
                "blamed": float(said.text.startswith(("The model is too", "The model is not"))),
                "error_held": float(said.error.low <= truth[0] <= said.error.high),
                "offset_held": float(said.offset.low <= truth[1] <= said.offset.high),
            }
        )
    return {key: round(float(np.mean([one[key] for one in found])), 4) for key in found[0]}


def plain_error(said: Calibration) -> float:
    """The expected calibration error as it is usually given, over the same bins."""
    rows = sum(bin.rows for bin in said.bins)
    return sum(bin.rows * abs(bin.confidence - bin.accuracy.value) for bin in said.bins) / rows


def _said(drawn: Mapping[str, Any], seed: int, resamples: int = RESAMPLES) -> Calibration:
    found = calibration(**drawn, temperature=None, resamples=resamples, seed=seed)
    assert found is not None
    return found


def _truth(name: str, draw: Draw) -> tuple[float, float]:
    """The error and the offset on so many rows that they hardly vary; calibrated models have none."""
    if name.startswith("calibrated"):
        return 0.0, 0.0
    said = _said(draw(np.random.default_rng(zlib.crc32(name.encode())), POPULATION), 0, resamples=2)
    return plain_error(said), said.offset.value


def _softmax(z: Floats) -> Floats:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    found: Floats = e / e.sum(axis=1, keepdims=True)
    return found


def _normal_share(z: Floats) -> Floats:
    """The share of a standard normal below z."""
    from scipy.special import ndtr

    return np.asarray(ndtr(z))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=300, help="of each setting and number of rows")
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS), help="measured anew")
    parser.add_argument("--render", action="store_true", help="write the page from the results; measure nothing")
    arguments = parser.parse_args()
    kept: dict[str, Any] = read_json(PATH) if PATH.is_file() else {}
    for name, draw in SETTINGS.items() if not arguments.render else ():
        if name in arguments.only if arguments.only else name not in kept:
            truth = _truth(name, draw)
            by_rows = {str(rows): measured(name, draw, rows, arguments.sets, truth) for rows in ROWS}
            kept[name] = {"sets": arguments.sets, "error": truth[0], "offset": truth[1], "rows": by_rows}
            write_json(PATH, kept)
            print(name, kept[name], flush=True)
    write_text(PATH.with_suffix(".md"), page({name: kept[name] for name in SETTINGS if name in kept}))


def page(kept: Mapping[str, Any]) -> str:
    """A table for each number that is asked about, Markdown."""
    parts = (
        ("The calibration error, as usually given and without what chance adds", _errors, "true error"),
        ("How often the model is called miscalibrated", _blamed, "true offset"),
        ("How often the 90% intervals of error and offset hold the truth", _held, "true offset"),
    )
    lines = [
        "# Calibration of models whose calibration is known",
        "",
        "Made by `python -m benchmarks.evaluation.calibration`, whose docstring says how. Calibrated models are to be "
        "called miscalibrated in at most 10% of the sets.",
    ]
    for title, cell, fact in parts:
        sizes = " | ".join(f"{rows:,} rows" for rows in ROWS)
        lines += ["", f"## {title}", "", f"| model | sets | {fact} | {sizes} |", "|---" * (3 + len(ROWS)) + "|"]
        for name, one in kept.items():
            cells = " | ".join(cell(one["rows"][str(rows)], one["sets"]) for rows in ROWS)
            lines.append(f"| {name} | {one['sets']} | {one[fact.split()[1]]:.3f} | {cells} |")
    return "\n".join(lines) + "\n"


def _errors(one: Mapping[str, float], sets: int) -> str:
    return f"{one['plain']:.3f}, {one['error']:.3f}"


def _blamed(one: Mapping[str, float], sets: int) -> str:
    low, high = wilson(one["blamed"], sets, 0.95)
    return f"{one['blamed']:.0%} ({low:.0%} to {high:.0%})"


def _held(one: Mapping[str, float], sets: int) -> str:
    return f"{one['error_held']:.0%}, {one['offset_held']:.0%}"


if __name__ == "__main__":
    main()
