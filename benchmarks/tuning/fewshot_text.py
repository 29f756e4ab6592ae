"""Few-shot texts: contrastive tuning, tl's and SetFit's, against the probe, lp_ft and fine-tuning.

    python -m benchmarks.tuning.fewshot_text [--data FOLDER] [--only SET ...] [--per-class K ...] [--draws N]
    python -m benchmarks.tuning.fewshot_text --render

FOLDER (default: $TL_SHARED_DATA or ../shared/data) holds datasets/. Each run is kept as soon as it is done; a killed
benchmark goes on where it was. Results: benchmarks/results/tuning_fewshot_text.{json,md}.
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
from tl_core.config import validate
from tl_core.extraction import collate_samples, decoded, embed, extract, pool_windows, space_of
from tl_core.manifest import Manifest, scan
from tl_core.registry import Registry, load_registry
from tl_core.store import FeatureStore
from tl_core.training import fit_probe
from tl_core.training.contrastive import contrastive
from tl_core.training.job import Job, fit
from tl_core.types import Backbone, Head, Prepared
from tl_core.watch import watch_metric
from tl_core.weights import read_json
from tl_core.workspace import write_json, write_text

PATH = RESULTS / "tuning_fewshot_text.json"
BACKBONE = "all-minilm-l6-v2"
SETS: dict[str, dict[str, str]] = {
    "sst2_mini": {},
    "sentiment_domains": {},
    "trec6": {},
    "masakhanews_fra": {"text": "headline"},  # a tenth of the article's tokens: five sets in minutes, not hours
    "banking77_full": {},
}
STRATEGIES = ("probe", "lp_ft", "finetune", "contrastive", "setfit")
CPU = torch.device("cpu")
CLEAR = 0.01  # of accuracy: what contrastive must be ahead on average, besides being ahead in each draw


@dataclass(frozen=True)
class Settings:
    """What all runs share. Word embeddings stay frozen wherever the body trains: they are half of the weights and
    most of an optimiser step, and few of their rows see a text."""

    precision: str = "bfloat16"
    test_rows: int = 600
    train_from: int = 6
    epochs: int = 10
    lr: float = 1e-4
    head_lr: float = 1e-3
    batch_size: int = 32
    small: int = 128  # training rows, up to which lp_ft and finetune take batches of
    small_batch: int = 8  # rows, which is in their favour: of 32 they would have one or two steps an epoch
    body_lr: float = 2e-5  # setfit's, as all that follows
    pairs_per_row: int = 40  # as SetFit's num_iterations 20
    most_pairs: int = 2400
    pair_batch: int = 16

    @property
    def tune(self) -> dict[str, Any]:
        """The product's own keys; nothing is fitted on validation rows."""
        return {
            "train_from": self.train_from, "epochs": self.epochs, "lr": self.lr, "head_lr": self.head_lr,
            "batch_size": self.batch_size, "precision": self.precision, "refit": False, "curve": False,
            "calibrate": False,
        }  # fmt: skip


SETTINGS = Settings()


@dataclass(frozen=True)
class Model:
    """What a strategy leaves. backbone: None where it is the pretrained one as it was."""

    head: Head
    backbone: Backbone | None
    val: float


def fitted(job: Job, strategy: str) -> Model:
    """One fit by name."""
    if strategy == "setfit":
        return setfit(job)
    if strategy != "contrastive" and len(job.train) <= SETTINGS.small:
        job = job.tuned(batch_size=SETTINGS.small_batch)
    found = contrastive(job) if strategy == "contrastive" else fit(job.tuned(strategy=strategy))
    truth = job.manifest.target_array(job.val)
    return Model(found.head, found.backbone, watch_metric("multiclass", found.said, truth, "accuracy"))


def setfit(job: Job) -> Model:
    """The body tuned on pairs, then the product's probe on what it gives."""
    backbone = job.spec.build()
    tune_body(backbone, prepared(job, backbone, job.train), job.targets(job.train).numpy(), job.config.seed)
    head, tune = job.head_spec.build(backbone.feature_dim, job.task), job.config.tune
    x_train, x_val = (embedded(job, backbone, rows) for rows in (job.train, job.val))
    y_train, y_val = job.targets(job.train), job.targets(job.val)
    found = fit_probe(x_train, y_train, x_val, y_val, head, job.head_spec, job.task, tune.strengths, tune.refit)
    val = next(point["val"] for point in found.path if point["strength"] == found.strength)
    return Model(found.head, backbone, val)


def tune_body(backbone: Backbone, samples: Sequence[Prepared], labels: np.ndarray, seed: int) -> None:
    """Pull texts of one class together and push those of others apart, in place.

    One pass over pairs, as many of one class as of two; the squared error of a pair's cosine against 1 or 0; AdamW
    with a linear warm-up over a tenth of the steps, then linearly to zero (Tunstall et al. 2022, arXiv:2209.11055,
    with SetFit's defaults). A text that stands in several pairs of a batch runs once.
    """
    wanted = min(SETTINGS.pairs_per_row * len(samples), SETTINGS.most_pairs)
    batches = list(pair_batches(labels, wanted, np.random.default_rng(seed)))
    body = nn.ModuleList(list(backbone.segments.values())[-SETTINGS.train_from - 1 :])  # the last one pools
    start = len(backbone.segments) - len(body)
    body.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(body.parameters(), lr=SETTINGS.body_lr, weight_decay=0.01)
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
    with torch.autocast("cpu", dtype=getattr(torch, SETTINGS.precision)):
        for _, batch, owner in collate_samples(backbone, samples):
            with torch.no_grad():
                state = backbone(batch, 0, start)
            outputs.append(backbone(state, start)["x"].float())
            owners.append(owner)
    return pool_windows(torch.cat(outputs), torch.cat(owners), len(samples))


def pair_batches(labels: np.ndarray, wanted: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Batches int64 [B, 2] of places: half of the pairs of one class, half of two."""
    places = np.arange(len(labels))
    for _ in range(math.ceil(wanted / SETTINGS.pair_batch)):
        left = rng.integers(len(labels), size=SETTINGS.pair_batch)
        right = np.empty_like(left)
        for i, place in enumerate(left):
            same = labels == labels[place]
            allowed = places[same & (places != place)] if i % 2 else places[~same]
            right[i] = rng.choice(allowed) if len(allowed) else place
        yield np.stack([left, right], axis=1)


def drawn(manifest: Manifest, per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation rows: so many of each class, or half of a class's rows each where it has fewer."""
    rows = np.random.default_rng(seed).permutation(np.concatenate([manifest.rows("train"), manifest.rows("val")]))
    targets = manifest.target_array(rows)
    train, val = [], []
    for label in range(len(manifest.targets.classes)):
        own = rows[targets == label]
        count = min(per_class, len(own) // 2)
        train.append(own[:count])
        val.append(own[count : 2 * count])
    return np.concatenate(train), np.concatenate(val)


def prepared(job: Job, backbone: Backbone, rows: np.ndarray) -> list[Prepared]:
    """Manifest rows as the backbone takes them."""
    return [backbone.prepare(decoded(s, job.loader, backbone.need)) for s in job.manifest.samples(rows)]


def embedded(job: Job, backbone: Backbone, rows: np.ndarray) -> Tensor:
    """Embeddings [N, D] of manifest rows by the backbone as it is now."""
    return embed(backbone, prepared(job, backbone, rows), CPU, SETTINGS.precision)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("TL_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    parser.add_argument("--per-class", nargs="+", type=int, default=[8, 16])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--render", action="store_true", help="write the page from the results; measure nothing")
    arguments = parser.parse_args()
    if not arguments.render:
        if not (arguments.data / "datasets").is_dir():
            sys.exit(f"no data sets in {arguments.data}; set TL_SHARED_DATA or --data")
        run(arguments)
    text = page(read_json(PATH))
    write_text(PATH.with_suffix(".md"), text)
    print(text)


def run(arguments: argparse.Namespace) -> None:
    """Measure what is not there yet, and keep each run as soon as it is done."""
    torch.set_num_threads(1)
    registry = load_registry()
    results = read_json(PATH) if PATH.is_file() else {}
    if results.get("settings") != asdict(SETTINGS):
        results = {"settings": asdict(SETTINGS), "backbone": BACKBONE, "runs": {}}
    results["machine"] = machine()
    manifests: dict[str, Manifest] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for per_class, seed, name, strategy in product(
            arguments.per_class, range(arguments.draws), arguments.only, arguments.strategies
        ):
            key = f"{name}/{per_class}/{seed}/{strategy}"
            if key in results["runs"]:
                continue
            if name not in manifests:
                path = (arguments.data / "datasets" / name).resolve()
                settings = validate({"data": SETS[name]})
                manifests[name] = scan(path, settings, registry.loaders(), base=ROOT, cache=Path(scratch))
            job = job_of(registry, manifests[name], per_class, seed, Path(scratch) / key)
            results["runs"][key] = measure(job, strategy)
            write_json(PATH, results)
            print(key, results["runs"][key], flush=True)


def job_of(registry: Registry, manifest: Manifest, per_class: int, seed: int, folder: Path) -> Job:
    """A draw as the product's step would fit it, with a store of its own, so that its cost counts."""
    train, val = drawn(manifest, per_class, seed)
    spec = registry.backbone(BACKBONE, "text")
    return Job(
        manifest=manifest,
        train=train,
        val=val,
        loader=registry.loader("text"),
        spec=spec,
        head_spec=registry.head("text", "multiclass", "linear"),
        config=validate({"seed": seed, "tune": SETTINGS.tune}),
        device=CPU,
        space=space_of(spec.build(), SETTINGS.precision),
        store=FeatureStore(folder / "store"),
        state=folder / "state",
    )


@torch.no_grad()
def measure(job: Job, strategy: str) -> dict[str, Any]:
    """One fit: accuracy on test and validation rows, and its CPU seconds without those of testing."""
    test = np.random.default_rng(0).permutation(job.manifest.rows("test"))[: SETTINGS.test_rows]
    started = time.process_time()
    with torch.enable_grad():
        if strategy in ("probe", "lp_ft", "finetune"):
            rows = np.concatenate([job.train, job.val])
            extract(job.manifest, rows, job.loader, job.spec.build(), job.store, device="cpu", engine="torch",
                    precision=SETTINGS.precision)  # fmt: skip
        model = fitted(job, strategy)
    seconds = time.process_time() - started
    said = model.head.decode(model.head(embedded(job, model.backbone or job.spec.build(), test)))
    accuracy = watch_metric("multiclass", said.numpy(), job.manifest.target_array(test), "accuracy")
    return {"accuracy": round(accuracy, 6), "val": round(model.val, 6), "cpu_seconds": round(seconds, 1)}


def page(results: Mapping[str, Any]) -> str:
    """The results as a Markdown page."""
    runs, settings = results["runs"], results["settings"]
    cells = sorted(
        {(int(key.split("/")[1]), key.split("/")[0]) for key in runs}, key=lambda c: (c[0], [*SETS].index(c[1]))
    )
    facts = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    lines = [
        "# Few-shot texts: contrastive tuning of the body",
        "",
        f"{facts}. Made by `python -m benchmarks.tuning.fewshot_text` with {results['backbone']}, one thread, "
        f"{settings['precision']}.",
        "",
        "Each draw has k training and k validation rows of each class (half of a class's rows each where it has fewer)",
        f"and the same {settings['test_rows']} test rows at most. Validation chooses strengths and epochs; nothing is",
        "fitted on it. Wherever the body trains, the word embeddings stay frozen.",
        "",
        "- probe: the product's probe on frozen embeddings.",
        f"- lp_ft, finetune: the product's, {settings['epochs']} epochs at most, rate {settings['lr']:g}, batches of",
        f"  {settings['small_batch']} (of {settings['batch_size']} from {settings['small'] + 1} rows on).",
        f"- contrastive: the product's, {settings['epochs']} epochs, rate {settings['lr']:g}, batches of "
        f"{settings['batch_size']}.",
        f"- setfit: its recipe, {settings['pairs_per_row']} pairs a training row, {settings['most_pairs']} at most, in",
        f"  batches of {settings['pair_batch']}, rate {settings['body_lr']:g}; then the product's probe.",
        "",
        "Accuracy in percent: mean over draws, and their standard deviation (in brackets: draws, where not all were",
        "measured). CPU seconds: mean of a fit, features and validation included, the test rows not; the machine was",
        "shared with other work.",
        "",
        f"| set | k | draws | {' | '.join(STRATEGIES)} | contrastive against the better of probe and lp_ft, by draw | "
        f"CPU s: {' / '.join(STRATEGIES)} |",
        "|---|---|---|" + "---|" * (len(STRATEGIES) + 2),
    ]
    for per_class, name in cells:
        by = {s: _runs(runs, name, per_class, s) for s in STRATEGIES}
        ahead, most = _ahead(runs, name, per_class), max(map(len, by.values()))
        lines.append(
            f"| {name} | {per_class} | {most} | "
            + " | ".join(_spread([100 * run["accuracy"] for run in found], most) for found in by.values())
            + f" | {', '.join(f'{100 * a:+.1f}' for a in ahead) or '-'} | "
            + " / ".join(f"{np.mean([r['cpu_seconds'] for r in found]):.0f}" if found else "-" for found in by.values())
            + " |"
        )
    former = sorted({run["commit"] for run in runs.values() if "commit" in run})
    if former:
        count = sum("commit" in run for run in runs.values())
        lines += ["", f"{count} of {len(runs)} runs (named in the JSON file) were made with tl at {', '.join(former)}."]
    first = min((k for k, _ in cells), default=0)
    judged = {name: _ahead(runs, name, k) for k, name in cells if k == first and _ahead(runs, name, k)}
    clear = [name for name, ahead in judged.items() if min(ahead) > 0 and np.mean(ahead) >= CLEAR]
    lines += [
        "",
        f"At {first} per class contrastive is clearly ahead of both (in each draw, and by {100 * CLEAR:g} point or "
        f"more on average) on {len(clear)} of {len(judged)} sets{': ' + ', '.join(clear) if clear else ''}.",
        "",
    ]
    return "\n".join(lines)


def _runs(runs: Mapping[str, Any], name: str, per_class: int, strategy: str) -> list[dict[str, Any]]:
    """The draws of a cell, in their order."""
    keys = [key.split("/") for key in runs]
    draws = sorted(int(k[2]) for k in keys if (k[0], int(k[1]), k[3]) == (name, per_class, strategy))
    return [runs[f"{name}/{per_class}/{draw}/{strategy}"] for draw in draws]


def _ahead(runs: Mapping[str, Any], name: str, per_class: int) -> list[float]:
    """How far contrastive is ahead of the rival with the better mean, probe or lp_ft, in each complete draw."""
    found = [_runs(runs, name, per_class, s) for s in ("contrastive", "probe", "lp_ft")]
    count = min(map(len, found))
    ours, *rivals = (np.array([run["accuracy"] for run in part[:count]]) for part in found)
    if count == 0:
        return []
    best = max(rivals, key=lambda values: float(values.mean()))
    return [float(a) for a in ours - best]


def _spread(values: Sequence[float], draws: int) -> str:
    """Mean and standard deviation, and how many draws there are where these are not all."""
    if not values:
        return "-"
    spread = f" ±{np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}" + (f" ({len(values)})" if len(values) < draws else "")


if __name__ == "__main__":
    main()
