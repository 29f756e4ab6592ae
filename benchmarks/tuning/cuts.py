"""What training from stored states saves: epoch times against the frozen prefix without a cache and full fine-tuning.

    python -m benchmarks.tuning.cuts [--data FOLDER] [--cache FOLDER] [--precision auto|float32|bfloat16]
                                     [--only NAME ...] [--photos 96] [--rounds 3] [--accuracy | --times | --render]

Times: ResNet-50 (its last stage) and ViT-S/16 (its last two blocks) with random weights, since weights decide nothing
about speed, on 500 x 375 JPEG files of real photos. An epoch is the product's own loop over training rows: decoding or
reading the states, forward, backward and update; validation aside. The ways take turns, round by round; medians, and
ratios of one run, by the clock and in seconds of processors, which other programs on the machine hardly change. What
filling the store takes comes once, and is told beside them.

Accuracy: real weights on real sets, trained in the same way from raw samples and from stored states, each from several
seeds, which draw the batches. Results: benchmarks/results/tuning_cuts.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.features.material import load, manifest_of, photos
from benchmarks.features.plugins import registry_here
from benchmarks.features.setting import Setup, machine, say
from benchmarks.tuning.cuts_tables import page
from tl_core.config import validate
from tl_core.engines import resolve_device, resolve_precision
from tl_core.manifest import Manifest, scan
from tl_core.registry import Registry
from tl_core.store import FeatureStore, Space
from tl_core.training import finetune, predict_rows
from tl_core.training.job import Job
from tl_core.training.loop import Training
from tl_core.training.plan import plan_of
from tl_core.training.processes import processes
from tl_core.training.sources import source_of
from tl_core.training.trained import Trained
from tl_core.types import Backbone, BackboneSpec
from tl_core.watch import watch_metric

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
BATCH = 32
WAYS: dict[str, dict[str, Any]] = {
    "full": {"train_from": "all", "cache": "never"},
    "frozen": {"cache": "never"},
    "stored": {"cache": "always"},
}
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Subject:
    """A network, how many of its last segments with weights train, and the goals for its epochs.

    of_frozen, of_full: share of the others' epoch time that an epoch from stored states may take.
    """

    name: str
    train_from: int
    trained: str
    of_frozen: float
    of_full: float


SUBJECTS = {
    "resnet50": Subject("resnet50", 1, "the last stage", 0.45, 0.20),
    "vit_small": Subject("vit_small_patch16_224", 3, "the last two blocks and the norm", 0.30, 0.10),
}


@dataclass(frozen=True)
class Contest:
    """A data set and a network of which so many segments train, for accuracy."""

    dataset: str
    weights: str
    train_from: int
    epochs: int = 4


CONTESTS = (
    Contest("hymenoptera", "mobilenet_v1_050_160_imagenet", 3),
    Contest("sign_digits", "mobilenet_v1_050_160_imagenet", 3),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("TL_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "tl-benchmarks")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--only", nargs="*", choices=sorted(SUBJECTS), default=sorted(SUBJECTS))
    parser.add_argument("--photos", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--times", action="store_true", help="no accuracy")
    parser.add_argument("--accuracy", action="store_true", help="no times")
    parser.add_argument("--render", action="store_true", help="only write the page again")
    arguments = parser.parse_args()
    path = RESULTS / "tuning_cuts.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"times": {}, "accuracy": {}}

    def keep() -> None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        (RESULTS / "tuning_cuts.md").write_text(page(results))

    device = resolve_device(arguments.device)
    setup = Setup(arguments.data, arguments.cache, device.type)
    precision = resolve_precision(arguments.precision, device, {})
    if not (arguments.accuracy or arguments.render):
        for name in arguments.only:
            measured = times(SUBJECTS[name], setup, device, precision, arguments.photos, arguments.rounds)
            results["times"][f"{name} {precision}"] = {**measured, "machine": machine(device.type)}
            keep()
    if not (arguments.times or arguments.render):
        for contest in CONTESTS:
            if (setup.data / "datasets" / contest.dataset).is_dir():
                results["accuracy"][contest.dataset] = accuracy(contest, setup, device)
                keep()
    keep()
    say(page(results))


def times(
    subject: Subject, setup: Setup, device: torch.device, precision: str, count: int, rounds: int
) -> dict[str, Any]:
    """Seconds of an epoch by each way, and what filling the store took."""
    registry = registry_here()
    manifest, rows = load(manifest_of(photos(setup, count), setup))
    spec = random_weights(registry.backbone(subject.name, "image"))
    with tempfile.TemporaryDirectory(dir=setup.cache) as folder:
        job = partial(job_of, registry, manifest, rows, rows[:1], spec, Path(folder), device)
        made: dict[str, Training] = {}
        filled: dict[str, Any] = {}
        for way, tune in WAYS.items():
            settings = {"train_from": subject.train_from, "precision": precision, "augment": False, **tune}
            started = time.perf_counter()
            made[way], cut = training_of(job(epochs=rounds + 1, batch_size=BATCH, **settings))
            if cut.cut is not None:
                filled = {"seconds": time.perf_counter() - started, **cut.cut}
        seconds = interleaved({way: partial(epoch, training) for way, training in made.items()}, rounds)
    return {
        "subject": subject.name,
        "trained": subject.trained,
        "precision": precision,
        "rows": len(rows),
        "batch": BATCH,
        "seconds": seconds,
        "filling": filled,
        "goals": {"frozen": subject.of_frozen, "full": subject.of_full},
    }


def training_of(job: Job) -> tuple[Training, Any]:
    """The product's loop as finetune() sets it up, the head starting from zeros; and what was decided of states."""
    tune = job.config.tune
    backbone = job.spec.build()
    plan = plan_of(tune, backbone)
    source, cut = source_of(job, backbone, plan)
    for tensor in (*backbone.parameters(), *backbone.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    head = job.head_spec.build(backbone.feature_dim, job.manifest.targets).to(job.device).requires_grad_(True)
    trained = Trained(backbone, plan, tune, job.config.seed)
    return Training(job, backbone, head, trained, source, tune.precision, processes(job.device)), cut


def epoch(training: Training, number: int) -> None:
    for _ in training.epoch(number):
        pass
    if training.job.device.type == "cuda":
        torch.cuda.synchronize()


def interleaved(ways: Mapping[str, Callable[[int], None]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of each way in each round, by the clock and of processors; an epoch of each goes before, uncounted."""
    seconds: dict[str, dict[str, list[float]]] = {"clock": {}, "processor": {}}
    clocks = {"clock": time.perf_counter, "processor": time.process_time}
    for number in range(rounds + 1):
        for way, run in ways.items():
            before = {kind: clock() for kind, clock in clocks.items()}
            run(number + 1)
            taken = {kind: clock() - before[kind] for kind, clock in clocks.items()}
            if number:
                for kind, value in taken.items():
                    seconds[kind].setdefault(way, []).append(value)
                say(f"  round {number}: {way} {taken['clock']:.2f} s ({taken['processor']:.2f} s of processors)")
    return seconds


def accuracy(contest: Contest, setup: Setup, device: torch.device) -> dict[str, Any]:
    """Test accuracy from raw samples and from stored states, by seed."""
    registry = registry_here()
    manifest = scan(setup.data / "datasets" / contest.dataset, validate({}), registry.loaders(), progress=False)
    spec = registry.backbone(str(setup.data / "weights" / contest.weights), "image")
    found: dict[str, Any] = {"raw": [], "stored": [], "differ": [], "rows": len(manifest.rows("test"))}
    test = manifest.rows("test")
    truth = manifest.target_array(test)
    with tempfile.TemporaryDirectory(dir=setup.cache) as folder:
        for seed in SEEDS:
            said = {}
            for way, cache in (("raw", "never"), ("stored", "always")):
                job = job_of(
                    registry, manifest, manifest.rows("train"), manifest.rows("val"), spec, Path(folder), device, seed,
                    train_from=contest.train_from, epochs=contest.epochs, augment=False, cache=cache,
                )  # fmt: skip
                fitted = finetune(job)
                shutil.rmtree(job.state, ignore_errors=True)
                backbone = fitted.backbone or spec.build()
                said[way] = predict_rows(manifest, test, job.loader, backbone, fitted.head, device)
                found[way].append(watch_metric("multiclass", said[way], truth, "accuracy"))
                say(f"  {contest.dataset}, seed {seed}: {way} {found[way][-1]:.3f}")
            found["differ"].append(int((said["raw"].argmax(1) != said["stored"].argmax(1)).sum()))
    mean = {way: statistics.mean(found[way]) for way in ("raw", "stored")}
    return {**found, "weights": contest.weights, "train_from": contest.train_from, "mean": mean}


def job_of(
    registry: Registry,
    manifest: Manifest,
    train: np.ndarray,
    val: np.ndarray,
    spec: BackboneSpec,
    folder: Path,
    device: torch.device,
    seed: int = 0,
    **tune: Any,
) -> Job:
    """A job of the linear head over an image network. tune: keys of the config's section."""
    config = validate({"seed": seed, "tune": {"strategy": "finetune", **tune}})
    backbone: Backbone = spec.build()
    return Job(
        manifest=manifest,
        train=train,
        val=val,
        loader=registry.loader("image"),
        spec=spec,
        head_spec=registry.head("image", manifest.targets.task, "linear"),
        config=config,
        device=device,
        space=Space(backbone.fingerprint, "end", "float32"),
        store=FeatureStore(folder / "store"),
        state=folder / "state",
    )


def random_weights(spec: BackboneSpec, seed: int = 0) -> BackboneSpec:
    """The same network with weights that are drawn."""

    def build(asked: BackboneSpec, random_seed: int | None) -> Backbone:
        return spec.builder(spec, seed if random_seed is None else random_seed)

    return replace(spec, builder=build)


if __name__ == "__main__":
    main()
