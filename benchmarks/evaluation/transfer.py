"""Is the verdict on pretraining right where the answer is known?

    python -m benchmarks.evaluation.transfer [--data FOLDER] [--draws 3] [--render]

Natural photographs with a network pretrained on ImageNet: it helps. scikit-learn's digits, which are 8 x 8 pixels,
with small networks pretrained on natural images: a probe on the pixels is hard to beat, so that it hurts or can't be
told, and never helps. A few dozen ants and bees with weak features (the starter has seen generated pictures only; the
first layers of a small ImageNet network): can't be told; with all of that network it helps, if that can be told.
Each draw takes other rows; the pipeline runs as `tl run` would, with a probe. Results:
benchmarks/results/evaluation_transfer.{json,md}. Budget: about ten minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tl_core.config import validate
from tl_core.evaluation import meaning, transfer
from tl_core.registry import load_registry
from tl_core.report import ReportFacts
from tl_core.steps import evaluate, extract, select, tune, version
from tl_core.workspace import Workspace, write_json

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "evaluation_transfer.json"
SMALL = "mobilenet_v1_025_224_imagenet"


@dataclass(frozen=True)
class Case:
    """A question whose answer is known. draw: writes class folders of images, by a seed; allowed: right verdicts."""

    name: str
    draw: Callable[[Path, Path, int], None]
    backbones: tuple[str, ...]
    allowed: tuple[str, ...]


def photographs(data: Path, folder: Path, seed: int) -> None:
    """20 classes of caltech, 20 photographs of each."""
    _some(data / "datasets" / "caltech20", folder, 20, seed)


def digits(data: Path, folder: Path, seed: int) -> None:
    """scikit-learn's digits as images of 8 x 8 pixels, 40 of each."""
    from PIL import Image
    from sklearn.datasets import load_digits

    found = load_digits()
    rng = np.random.default_rng(seed)
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True)
        for row in rng.permutation(np.flatnonzero(found.target == digit))[:40]:
            pixels = np.clip(found.images[row] * 16, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / str(digit) / f"{row}.png")


def ants_and_bees(data: Path, folder: Path, seed: int) -> None:
    """30 photographs of ants and 30 of bees."""
    _some(data / "datasets" / "hymenoptera", folder, 30, seed)


def _some(dataset: Path, folder: Path, per_class: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    by_class: dict[str, list[Path]] = {}
    for path in sorted(dataset.rglob("*")):
        if path.suffix.lower() in {".jpg", ".jpeg", ".png"}:
            by_class.setdefault(path.parent.name, []).append(path)
    for name, paths in by_class.items():
        (folder / name).mkdir(parents=True)
        for i in rng.permutation(len(paths))[:per_class]:
            shutil.copy(paths[i], folder / name / f"{i}_{paths[i].name}")


CASES = (
    Case("photographs", photographs, ("mobilenetv2_100_imagenet",), ("helps",)),
    Case("digits", digits, (SMALL, "starter-image"), ("hurts", "can't tell")),
    Case("ants and bees", ants_and_bees, ("starter-image", f"{SMALL}#block2"), ("can't tell",)),
    Case("ants and bees, all of it", ants_and_bees, (SMALL,), ("helps", "can't tell")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("TL_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--render", action="store_true", help="only write the table of runs that are kept")
    arguments = parser.parse_args()
    kept: dict[str, Any] = json.loads(arguments.results.read_text()) if arguments.results.is_file() else {}
    for case in CASES if not arguments.render else ():
        for backbone in case.backbones:
            for seed in range(arguments.draws):
                key = f"{case.name}, {backbone}, draw {seed}"
                if key not in kept:
                    kept[key] = run(arguments.data, case, backbone, seed)
                    write_json(arguments.results, kept)
                    print(f"{key}: {kept[key]['verdict']} ({kept[key]['seconds']} s)", flush=True)
    arguments.results.with_suffix(".md").write_text(table(kept))


def run(data: Path, case: Case, backbone: str, seed: int) -> dict[str, Any]:
    """One draw through all steps; the verdict, what it goes by, and whether it is one of the right ones."""
    started = time.perf_counter()
    network, _, view = backbone.partition("#")
    weights = data / "weights" / network
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case.draw(data, folder / "data", seed)
        config = validate({
            "seed": seed,
            "data": {"path": str(folder / "data"), "test_fraction": 0.4},
            "select": {"backbones": [f"{weights}#{view}".rstrip("#") if weights.is_dir() else backbone]},
            "tune": {"strategy": "probe"},
            "evaluate": {"diagnostics": False, "robustness": 0, "explain": 0},
        })  # fmt: skip
        workspace, registry = Workspace(folder / "run", folder / "store", folder / "cache"), load_registry()
        for step in (version, select, extract, tune, evaluate):
            step(config, registry, workspace)
        facts = ReportFacts.load(workspace.step("evaluate") / "report.json")
    evaluation = facts.evaluation
    said = transfer(evaluation, facts.strategy)
    ours = evaluation.summary[evaluation.watch]
    return {
        "verdict": said,
        "right": said in case.allowed,
        "meaning": meaning(evaluation, facts.strategy),
        "rows": evaluation.n_test,
        "accuracy": [ours.value, ours.low, ours.high],
        "floors": {
            name: [floor.value.value, floor.gain.low, floor.gain.high] for name, floor in evaluation.floors.items()
        },
        "seconds": round(time.perf_counter() - started, 1),
    }


def table(kept: dict[str, Any]) -> str:
    """The page, Markdown."""
    right = Counter(run["right"] for run in kept.values())
    lines = [
        "# Does pretraining help? Cases whose answer is known",
        "",
        f"{right[True]} of {len(kept)} verdicts right. Accuracy on test rows; in brackets the 90% interval of the gain "
        "over each rival without pretraining.",
        "",
        "| case | test rows | accuracy | plain features | random weights | verdict | right |",
        "|---" * 7 + "|",
    ]
    for key, run in sorted(kept.items()):
        floors = [_floor(run["floors"].get(name)) for name in ("baseline", "random_init")]
        lines.append(
            f"| {key} | {run['rows']} | {100 * run['accuracy'][0]:.1f} | {' | '.join(floors)} | {run['verdict']} "
            f"| {'yes' if run['right'] else 'no'} |"
        )
    return "\n".join(lines) + "\n"


def _floor(found: list[float] | None) -> str:
    if found is None:
        return "–"
    value, low, high = (100 * number for number in found)
    return f"{value:.1f} ({low:+.1f} to {high:+.1f})"


if __name__ == "__main__":
    main()
