"""Which strategy wins where, and whether auto takes it.

Two sets of each modality at 8, 16 and up to 64 labels per class (what a set has, where that is less), and sets whose
test rows come from other places than the training rows.

    OMP_NUM_THREADS=1 python -m benchmarks.tuning.strategies [--data FOLDER] [--only CELL ...] [--draws 3] [--part 1/2]
    python -m benchmarks.tuning.strategies --render

Each draw takes so many rows of each class by its seed, a seventh of them for validation, as `tl` would split them.
probe, lp_ft and finetune are fitted on that, with the defaults but for what a set says (SETS); auto sees the same rows,
tries them as it does in `tl tune`, and its result is that of the strategy that it takes. Test rows (at most 400) only
score. Every run is kept in benchmarks/results/tuning_strategies.json as soon as it is done, and is not repeated;
--render only writes the tables. Budget: a run of a cell takes two to five minutes of one core; give each core a process
of its own (--part 1/2 and --part 2/2). Trials may take what MINUTES are at SPEED, so that they are the same anywhere.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.selection.setting import RESULTS, ROOT, spec_of
from benchmarks.tuning.strategies_tables import MOST, page
from tl_core.config import TuneConfig, validate
from tl_core.extraction import extract, space_of
from tl_core.manifest import Manifest, scan
from tl_core.registry import Registry, load_registry
from tl_core.selection.crossval import deal
from tl_core.store import FeatureStore
from tl_core.training.finetune import predict_rows
from tl_core.training.job import Fitted, Job, fit
from tl_core.training.trial import decide
from tl_core.types import Backbone, Sample
from tl_core.watch import watch_metric
from tl_core.workspace import write_json

STRATEGIES = ("probe", "lp_ft", "finetune")
SIZES: dict[str, int] = {"8": 8, "16": 16, "all": MOST}  # rows of each class at most, validation rows among them
KEPT_BACK = 7  # one row in so many is for validation
TEST_ROWS = 400
SPEED = 2.0**38  # FLOP/s in bfloat16 of the two cores that this was run on, as tl measures them
MINUTES = TuneConfig().minutes


@dataclass(frozen=True)
class Set:
    """A data set with the backbone that is tuned on it. tune: what differs from the defaults, for the sake of time."""

    dataset: str
    modality: str
    backbone: str
    tune: Mapping[str, Any] = field(default_factory=dict)
    table: str = ""  # a file in the folder where the folder's own layout does not tell all


IMAGE, TEXT, AUDIO = "starter-image", "minilm_l6_vocab15k:2", "starter-audio"
SHIFTED = "mobilenet_v1_025_224_imagenet"  # photographs have made it what a shift can spoil
SETS = (
    Set("sign_digits", "image", IMAGE),
    Set("hymenoptera", "image", IMAGE),
    Set("trec6", "text", TEXT),
    Set("sst2_mini", "text", TEXT),
    Set("fsdd", "audio", AUDIO),
    # six windows a clip: the states before the last blocks are stored once
    Set("esc10", "audio", AUDIO, {"train_from": 2, "augment": False}),
)


@dataclass(frozen=True)
class Shift:
    """A set whose training rows come from some places and whose test rows also from others.

    place: of a sample, by what it is called or says; trained: place of the training rows, None for any; inside: whether
    a test row of a class and place is like the training rows.
    """

    of: Set
    place: Callable[[Sample, Mapping[str, str]], str]
    trained: str | None
    inside: Callable[[str, str], bool]
    per_class: int


def _folder(sample: Sample, places: Mapping[str, str]) -> str:
    return Path(str(sample.source)).parts[-4]


def _prefix(sample: Sample, places: Mapping[str, str]) -> str:
    return Path(str(sample.source)).name.partition("_")[0]


def _told(sample: Sample, places: Mapping[str, str]) -> str:
    return places[str(sample.source)]


SHIFTS = {
    "pacs_mini photo": Shift(
        Set("pacs_mini", "image", SHIFTED, table="metadata.csv"), _folder, "photo", lambda c, p: p == "photo", 64
    ),
    "pacs_spurious": Shift(
        Set("pacs_spurious", "image", SHIFTED, table="metadata.csv"),
        _prefix,
        None,
        lambda c, p: (c, p) in {("dog", "photo"), ("elephant", "sketch")},
        80,
    ),
    "sentiment amazon": Shift(Set("sentiment_domains", "text", TEXT), _told, "amazon", lambda c, p: p == "amazon", 64),
}
RECIPES: dict[str, dict[str, Any]] = {
    "probe": {"strategy": "probe"},
    "finetune": {"strategy": "finetune"},
    "lp_ft": {"strategy": "lp_ft"},
    "finetune, wise 0.5": {"strategy": "finetune", "wise": 0.5},
    "lp_ft, wise 0.5": {"strategy": "lp_ft", "wise": 0.5},
}
CELLS = (*(f"{one.dataset} {size}" for size in SIZES for one in SETS), *SHIFTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("TL_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--only", nargs="*", choices=CELLS, default=CELLS, metavar="CELL", help=", ".join(CELLS))
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument(
        "--part", default="1/1", help="2/3: of every three cells the second, for processes side by side"
    )
    parser.add_argument("--results", type=Path, default=RESULTS / "tuning_strategies.json")
    parser.add_argument("--render", action="store_true", help="only write the tables of runs that are kept")
    arguments = parser.parse_args()
    if not arguments.render:
        registry = load_registry()
        number, parts = map(int, arguments.part.split("/"))
        for draw in range(arguments.draws):  # where it is cut short, there are as many draws of each cell
            for cell in arguments.only[number - 1 :: parts]:
                key = f"{cell} draw {draw}"
                if key in _kept(arguments.results):
                    continue
                started = time.perf_counter()
                found = run(registry, arguments.data, cell, draw)
                found["seconds"] = round(time.perf_counter() - started, 1)
                _keep(arguments.results, key, found)
                print(f"{key}: {_told_briefly(found)}", flush=True)
    changed = {one.dataset: one.tune for one in SETS if one.tune}
    arguments.results.with_suffix(".md").write_text(page(_kept(arguments.results), changed))


def _kept(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def _keep(path: Path, key: str, found: Mapping[str, Any]) -> None:
    """Add a run to those that are kept, also by a process beside this one."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_json(path, {**_kept(path), key: found})


def run(registry: Registry, data: Path, cell: str, draw: int) -> dict[str, Any]:
    """One draw of a cell: the test metric of each strategy and what auto decides."""
    return shifted(registry, data, SHIFTS[cell], draw) if cell in SHIFTS else drawn(registry, data, cell, draw)


def drawn(registry: Registry, data: Path, cell: str, draw: int) -> dict[str, Any]:
    """A draw of a few rows of each class: the strategies' accuracy on test rows, and auto's decision."""
    dataset, _, size = cell.rpartition(" ")
    of = next(one for one in SETS if one.dataset == dataset)
    job = set_job(registry, data, of, draw)
    pool = np.concatenate([job.train, job.val])
    job = split_job(job, some_of(job.manifest, pool, SIZES[size], draw), draw)
    test = some_of(job.manifest, job.manifest.rows("test"), TEST_ROWS // len(job.task.classes), 0)
    backbone = extracted(job, test)
    found: dict[str, Any] = {"rows": len(job.train) + len(job.val), "test": {}, "validation": {}}
    for strategy in STRATEGIES:
        fitted, mine = _fitted(job, {"strategy": strategy}, f"{cell} {draw}")
        found["test"][strategy] = _accuracy(mine, _predicted(mine, fitted, test, backbone), test)
        found["validation"][strategy] = round(
            watch_metric("multiclass", fitted.said, job.manifest.target_array(job.val)), 6
        )
    found["auto"] = _decision(job, f"{cell} {draw}")
    return found


def shifted(registry: Registry, data: Path, shift: Shift, draw: int) -> dict[str, Any]:
    """A draw of a shift set: accuracy in and out of the training rows' domain by recipe, and auto's decision."""
    job = set_job(registry, data, shift.of, draw)
    manifest = job.manifest
    places = _places(data / "datasets" / shift.of.dataset)
    where = {row: shift.place(sample, places) for row, sample in _samples(manifest)}
    pool = np.array([r for r in np.concatenate([job.train, job.val]) if shift.trained in (None, where[int(r)])])
    job = split_job(job, some_of(manifest, pool, shift.per_class, draw), draw)
    test = manifest.rows("test")
    names = [manifest.targets.classes[y] for y in manifest.target_array(test)]
    inside = np.array([shift.inside(name, where[int(row)]) for name, row in zip(names, test, strict=True)])
    parts = {
        part: some_of(manifest, test[which], TEST_ROWS // 2 // len(job.task.classes), 0)
        for part, which in (("inside", inside), ("outside", ~inside))
    }
    rows = np.concatenate(list(parts.values()))
    backbone = extracted(job, rows)
    found: dict[str, Any] = {"rows": len(job.train) + len(job.val), "inside": {}, "outside": {}}
    for name, recipe in RECIPES.items():
        fitted, mine = _fitted(job, recipe, f"{shift.of.dataset} {name} {draw}")
        said = _predicted(mine, fitted, rows, backbone)
        found["inside"][name] = _accuracy(mine, said[: len(parts["inside"])], parts["inside"])
        found["outside"][name] = _accuracy(mine, said[len(parts["inside"]) :], parts["outside"])
    found["auto"] = _decision(job, f"{shift.of.dataset} {draw}")
    return found


def _samples(manifest: Manifest) -> list[tuple[int, Sample]]:
    rows = manifest.rows()
    return list(zip(rows.tolist(), manifest.samples(rows), strict=True))


def _places(folder: Path) -> dict[str, str]:
    """Texts of a table to their domain."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("t*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            found |= {row["text"]: row["domain"] for row in csv.DictReader(file)}
    return found


def set_job(registry: Registry, data: Path, of: Set, draw: int) -> Job:
    """The set's own training and validation rows with the defaults, but for what the set says."""
    tune = {"minutes": MINUTES, **of.tune}
    config = validate({"seed": draw, "tune": tune, "data": {"val_fraction": 0.001}})
    folder = data / "datasets" / of.dataset
    loader = registry.loader(of.modality)
    manifest = scan(folder / of.table if of.table else folder, config, [loader], cache=ROOT / ".tl", progress=False)
    spec = spec_of(registry, data, of.backbone, of.modality)
    cache = ROOT / ".tl" / "benchmarks" / "strategies"
    return Job(
        manifest=manifest,
        train=manifest.rows("train"),
        val=manifest.rows("val"),
        loader=loader,
        spec=spec,
        head_spec=registry.head(of.modality, manifest.targets.task, "linear"),
        config=config,
        device=torch.device("cpu"),
        space=space_of(spec.build(), "float32"),
        store=FeatureStore(cache / "store"),
        state=cache / "state",
    )


def some_of(manifest: Manifest, rows: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """At most so many rows of each class, by the seed."""
    shuffled = np.random.default_rng([seed, 7]).permutation(rows)
    y = manifest.target_array(shuffled)
    return np.sort(np.concatenate([shuffled[y == c][:per_class] for c in np.unique(y)]))


def split_job(job: Job, rows: np.ndarray, draw: int) -> Job:
    fold = deal(job.manifest.target_array(rows), job.task.task, KEPT_BACK, draw)
    return job.replace(train=rows[fold != 0], val=rows[fold == 0])


def extracted(job: Job, test: np.ndarray) -> Backbone:
    """The pretrained backbone, after it has put the embeddings of all rows that are looked at into the store."""
    backbone = job.spec.build()
    rows = np.concatenate([job.train, job.val, test])
    extract(job.manifest, rows, job.loader, backbone, job.store, device="cpu", precision="float32")
    return backbone


def _fitted(job: Job, recipe: Mapping[str, Any], name: str) -> tuple[Fitted, Job]:
    mine = job.tuned(**recipe, curve=False).replace(state=job.state / name.replace(" ", "_"))
    fitted = fit(mine)
    shutil.rmtree(mine.state, ignore_errors=True)
    return fitted, mine


@torch.no_grad()
def _predicted(job: Job, fitted: Fitted, rows: np.ndarray, pretrained: Backbone) -> np.ndarray:
    """Probabilities [N, C] of rows by the model; those of a probe from the stored embeddings."""
    if fitted.backbone is None:
        return np.asarray(fitted.head.decode(fitted.head(job.features(rows))))
    return predict_rows(job.manifest, rows, job.loader, fitted.backbone, fitted.head, job.device)


def _accuracy(job: Job, said: np.ndarray, rows: np.ndarray) -> float:
    return round(watch_metric("multiclass", said, job.manifest.target_array(rows)), 6)


def _decision(job: Job, name: str) -> dict[str, Any]:
    """What auto decides on these rows; the step would then fit that strategy as it was fitted here.

    held: of each held-out prediction the probability of the true class and whether it was right, to try other rules by.
    """
    mine = job.replace(state=job.state / f"auto_{name.replace(' ', '_')}")
    decision = decide(mine, SPEED)
    shutil.rmtree(mine.state, ignore_errors=True)
    rows = np.concatenate([part.held for part in decision.design.fits])
    y = job.manifest.target_array(rows)
    held: dict[str, Any] = {"rows": rows.tolist()}
    for strategy, said in decision.said.items():
        right = said.argmax(axis=1) == y
        held[strategy] = {
            "right": "".join("01"[int(r)] for r in right),
            "true": [round(float(p), 4) for p in said[np.arange(len(y)), y]],
        }
    return {**decision.facts, "held": held}


def _told_briefly(found: Mapping[str, Any]) -> str:
    scores = found["test"] if "test" in found else found["outside"]
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
    return f"{numbers}; auto: {found['auto']['chosen']} ({found['seconds']:.0f} s)"


if __name__ == "__main__":
    main()
