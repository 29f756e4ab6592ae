"""Few-shot texts: contrastive tuning, tl's and SetFit's, against the probe, lp_ft and fine-tuning.

    OMP_NUM_THREADS=1 python -m benchmarks.tuning.fewshot_text [--data FOLDER] [--sizes 8 16 all] [--draws N]
    python -m benchmarks.tuning.fewshot_text --render

Sets, draws, backbone and test rows are those of benchmarks.tuning.strategies, whose results file has what probe, lp_ft
and finetune reach on the same rows with tl's defaults; here contrastive tuning and SetFit's recipe are added. FOLDER
(default: $TL_SHARED_DATA or ../shared/data) holds datasets/ and weights/. Each run is kept as soon as it is done; a
killed benchmark goes on where it was. Results: benchmarks/results/tuning_fewshot_text.{json,md}.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.end_to_end import RESULTS, ROOT, machine
from benchmarks.tuning.strategies import SETS, SIZES, TEST_ROWS, set_job, some_of, split_job
from tl_core.config import TuneConfig
from tl_core.extraction import collate_samples, decoded, embed, pool_windows
from tl_core.registry import Registry, load_registry
from tl_core.training import fit_probe
from tl_core.training.finetune import predict_rows
from tl_core.training.job import Job, fit
from tl_core.training.plan import first_trained
from tl_core.training.schedule import epochs_of
from tl_core.types import Backbone, Head, Prepared
from tl_core.watch import watch_metric
from tl_core.weights import read_json
from tl_core.workspace import write_json, write_text

PATH = RESULTS / "tuning_fewshot_text.json"
RIVALS_PATH = RESULTS / "tuning_strategies.json"
TEXTS = {one.dataset: one for one in SETS if one.modality == "text"}
RIVALS = ("probe", "lp_ft", "finetune")
WAYS = ("10 epochs", "200 updates", "setfit")
RECIPE = {
    "train_from", "lr", "batch_size", "schedule", "warmup", "weight_decay", "clip", "precision", "strengths", "refit",
}  # fmt: skip
CPU = torch.device("cpu")


@dataclass(frozen=True)
class SetFit:
    """SetFit's recipe, with its defaults."""

    lr: float = 2e-5
    pairs_per_row: int = 40  # as num_iterations 20
    most_pairs: int = 2400
    pair_batch: int = 16
    precision: str = "bfloat16"


SETFIT = SetFit()


def settings() -> dict[str, Any]:
    """All that decides what a run comes to: where it changes, runs are measured anew."""
    return {"setfit": asdict(SETFIT), "tune": TuneConfig().model_dump(mode="json", include=RECIPE)}


def fitted(job: Job, way: str) -> tuple[Head, Backbone]:
    """One fit by name."""
    if way == "setfit":
        return setfit(job)
    epochs = 10 if way == "10 epochs" else epochs_of(job.config.tune, len(job.train))
    found = fit(job.tuned(strategy="contrastive", epochs=epochs, curve=False))
    assert found.backbone is not None
    return found.head, found.backbone


def setfit(job: Job) -> tuple[Head, Backbone]:
    """The body tuned on pairs, then the product's probe on what it gives."""
    backbone = job.spec.build()
    tune_body(backbone, prepared(job, backbone, job.train), job.targets(job.train).numpy(), job.config.seed)
    head, tune = job.head_spec.build(backbone.feature_dim, job.task), job.config.tune
    x_train, x_val = (
        embed(backbone, prepared(job, backbone, rows), CPU, SETFIT.precision) for rows in (job.train, job.val)
    )
    y_train, y_val = job.targets(job.train), job.targets(job.val)
    found = fit_probe(x_train, y_train, x_val, y_val, head, job.head_spec, job.task, tune.strengths, tune.refit)
    return found.head, backbone


def tune_body(backbone: Backbone, samples: Sequence[Prepared], labels: np.ndarray, seed: int) -> None:
    """Pull texts of one class together and push those of others apart, in place.

    One pass over pairs, as many of one class as of two; the squared error of a pair's cosine against 1 or 0; AdamW
    with a linear warm-up over a tenth of the steps, then linearly to zero (Tunstall et al. 2022, arXiv:2209.11055,
    with SetFit's defaults). A text that stands in several pairs of a batch runs once.
    """
    wanted = min(SETFIT.pairs_per_row * len(samples), SETFIT.most_pairs)
    batches = list(pair_batches(labels, wanted, np.random.default_rng(seed)))
    start = first_trained(backbone, "auto")  # word embeddings stay frozen, as they do by tl's default
    body = nn.ModuleList(list(backbone.segments.values())[start:])
    body.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(body.parameters(), lr=SETFIT.lr, weight_decay=0.01)
    rising = max(1, round(0.1 * len(batches)))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rising, (len(batches) - step) / (len(batches) - rising + 1))
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout
        for pairs in batches:
            used, place = np.unique(pairs, return_inverse=True)
            x = nn.functional.normalize(_forward(backbone, start, [samples[i] for i in used]), dim=1)
            left, right = torch.from_numpy(place.reshape(-1, 2)).T
            same = torch.from_numpy(labels[pairs[:, 0]] == labels[pairs[:, 1]]).float()
            loss = nn.functional.mse_loss((x[left] * x[right]).sum(dim=1), same)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(body.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    backbone.requires_grad_(False).eval()


def _forward(backbone: Backbone, start: int, samples: Sequence[Prepared]) -> Tensor:
    """Embeddings [N, D] with gradients from segment `start` on."""
    outputs, owners = [], []
    with torch.autocast("cpu", dtype=getattr(torch, SETFIT.precision)):
        for _, batch, owner in collate_samples(backbone, samples):
            with torch.no_grad():
                state = backbone(batch, 0, start)
            outputs.append(backbone(state, start)["x"].float())
            owners.append(owner)
    return pool_windows(torch.cat(outputs), torch.cat(owners), len(samples))


def pair_batches(labels: np.ndarray, wanted: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Batches int64 [B, 2] of places: half of the pairs of one class, half of two."""
    places = np.arange(len(labels))
    for _ in range(math.ceil(wanted / SETFIT.pair_batch)):
        left = rng.integers(len(labels), size=SETFIT.pair_batch)
        right = np.empty_like(left)
        for i, place in enumerate(left):
            same = labels == labels[place]
            allowed = places[same & (places != place)] if i % 2 else places[~same]
            right[i] = rng.choice(allowed) if len(allowed) else place
        yield np.stack([left, right], axis=1)


def prepared(job: Job, backbone: Backbone, rows: np.ndarray) -> list[Prepared]:
    """Manifest rows as the backbone takes them."""
    return [backbone.prepare(decoded(s, job.loader, backbone.need)) for s in job.manifest.samples(rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("TL_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--only", nargs="+", choices=list(TEXTS), default=list(TEXTS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["8", "16"])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--render", action="store_true", help="write the page from the results; measure nothing")
    arguments = parser.parse_args()
    if not arguments.render:
        if not (arguments.data / "datasets").is_dir():
            sys.exit(f"no data sets in {arguments.data}; set TL_SHARED_DATA or --data")
        run(arguments)
    text = page(read_json(PATH), read_json(RIVALS_PATH))
    write_text(PATH.with_suffix(".md"), text)
    print(text)


def run(arguments: argparse.Namespace) -> None:
    """Measure what is not there yet, and keep each run as soon as it is done."""
    torch.set_num_threads(1)
    registry = load_registry()
    results = read_json(PATH) if PATH.is_file() else {}
    if results.get("settings") != settings():
        results = {"settings": settings(), "runs": {}}
    results["machine"] = machine()
    for draw, size, name, way in product(range(arguments.draws), arguments.sizes, arguments.only, arguments.ways):
        key = f"{name} {size} draw {draw} {way}"
        if key not in results["runs"]:
            results["runs"][key] = measure(*drawn(registry, arguments.data, name, size, draw), way)
            write_json(PATH, results)
            print(key, results["runs"][key], flush=True)


def drawn(registry: Registry, data: Path, name: str, size: str, draw: int) -> tuple[Job, np.ndarray]:
    """A job and its test rows, as benchmarks.tuning.strategies draws them."""
    job = set_job(registry, data, TEXTS[name], draw)
    pool = np.concatenate([job.train, job.val])
    job = split_job(job, some_of(job.manifest, pool, SIZES[size], draw), draw)
    test = some_of(job.manifest, job.manifest.rows("test"), TEST_ROWS // len(job.task.classes), 0)
    return job, test


def measure(job: Job, test: np.ndarray, way: str) -> dict[str, Any]:
    """One fit: accuracy on test rows, and its CPU seconds without those of testing."""
    with tempfile.TemporaryDirectory() as state:  # a fit that goes on from a former one's state would cost too little
        started = time.process_time()
        head, backbone = fitted(job.replace(state=Path(state)), way)
        seconds = time.process_time() - started
    said = predict_rows(job.manifest, test, job.loader, backbone, head, CPU)
    accuracy = watch_metric("multiclass", said, job.manifest.target_array(test), "accuracy")
    return {"accuracy": round(accuracy, 6), "cpu_seconds": round(seconds, 1)}


def page(results: Mapping[str, Any], rivals: Mapping[str, Any]) -> str:
    """The results as a Markdown page. rivals: the results of benchmarks.tuning.strategies."""
    cells = _cells(results["runs"], rivals)
    facts = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    recipe = results["settings"]["setfit"]
    backbones = sorted({one.backbone for one in TEXTS.values()})
    lines = [
        "# Few-shot texts: contrastive tuning of the body",
        "",
        f"{facts}. Made by `python -m benchmarks.tuning.fewshot_text`, one thread.",
        "",
        "The draws of `python -m benchmarks.tuning.strategies`: so many rows of each class, a seventh of them for",
        f"validation, and the same {TEST_ROWS} test rows at most. probe, lp_ft and finetune are taken from its",
        f"results. All have tl's defaults but for what is said here, on {' and '.join(backbones)}.",
        "",
        "- contrastive, 10 epochs and 200 updates: tl's, with `tune.epochs=10`, and with as many epochs as lp_ft and",
        "  finetune have, which are 200 updates at least.",
        f"- setfit: its recipe, {recipe['pairs_per_row']} pairs a training row, {recipe['most_pairs']} at most, in",
        f"  batches of {recipe['pair_batch']}, rate {recipe['lr']:g}; then tl's probe.",
        "",
        "Test accuracy in percent, a row for each draw. CPU seconds are those of a fit, without the test rows; the",
        "machine was shared with other work.",
        "",
        f"| set, rows a class, draw | {' | '.join((*RIVALS, *_titles()))} | CPU s: {' / '.join(WAYS)} |",
        "|---|" + "---|" * (len(RIVALS) + len(WAYS) + 1),
    ]
    for cell, found in cells.items():
        seconds = [results["runs"].get(f"{cell} {way}", {}).get("cpu_seconds") for way in WAYS]
        lines.append(
            f"| {cell} | "
            + " | ".join(f"{100 * found[name]:.1f}" if name in found else "-" for name in (*RIVALS, *WAYS))
            + f" | {' / '.join('-' if s is None else f'{s:.0f}' for s in seconds)} |"
        )
    return "\n".join([*lines, "", *_compared(cells), ""])


def _titles() -> list[str]:
    return [way if way == "setfit" else f"contrastive, {way}" for way in WAYS]


def _cells(runs: Mapping[str, Any], rivals: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Accuracies by draw (`set size draw number`) and by strategy, of all draws with a run of ours."""
    draws = sorted({int(key.split()[3]) for key in runs})
    found = {}
    for size, name, draw in product(SIZES, TEXTS, draws):
        cell = f"{name} {size} draw {draw}"
        ours = {way: runs[f"{cell} {way}"]["accuracy"] for way in WAYS if f"{cell} {way}" in runs}
        if ours:
            found[cell] = {**rivals.get(cell, {}).get("test", {}), **ours}
    return found


def _compared(cells: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A table row for each way and rival: how they differ over the draws that both have, of all sets and of each."""
    lines = [
        "Mean difference in points over the draws, (its standard error), and in how many draws it is ahead:",
        "",
        f"| | all | {' | '.join(TEXTS)} |",
        "|---|---|" + "---|" * len(TEXTS),
    ]
    for number, (way, title) in enumerate(zip(WAYS, _titles(), strict=True), 1):
        for rival in (*RIVALS, *WAYS[number:]):
            both = {
                cell: 100 * (found[way] - found[rival]) for cell, found in cells.items() if {way, rival} <= found.keys()
            }
            sets = [[ahead for cell, ahead in both.items() if cell.split()[0] == name] for name in TEXTS]
            told = [_told(ahead) for ahead in [list(both.values()), *sets]]
            lines.append(f"| {title} against {rival} | {' | '.join(told)} |")
    return lines


def _told(ahead: Sequence[float]) -> str:
    if not ahead:
        return "-"
    error = f" ({np.std(ahead, ddof=1) / len(ahead) ** 0.5:.1f})" if len(ahead) > 1 else ""
    return f"{np.mean(ahead):+.1f}{error}, {sum(a > 0 for a in ahead)} of {len(ahead)}"


if __name__ == "__main__":
    main()
