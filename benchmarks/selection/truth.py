"""Fine-tunes every candidate on every set: the truth that rankings are measured against.

    python -m benchmarks.selection.truth [--data FOLDER] [--only SET ...] [--seeds 0 1 2]

The recipe, the same for all, goes from the probe to the whole network (LP-FT: Kumar et al., ICLR 2022,
arXiv:2202.10054): the head starts as a ridge-penalised linear probe on the frozen features, then all layers train by
AdamW (backbone 1e-4, head 3e-4, weight decay 0.01 on matrices), batches of 16, 5 epochs, linear warm-up over a tenth of
the steps and a cosine to zero, gradients clipped to norm 1, batch-norm statistics kept, bfloat16 autocast; images are
shifted by up to a tenth, and mirrored where that keeps the label. The last epoch counts: no test row chooses anything.
Each run is kept in benchmarks/results/selection_truth.json as soon as it is done; one that is kept is not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.selection.setting import CASES, RESULTS, ROOT, Case, manifest_of, spec_of, training_rows
from tl_core.config import TuneConfig
from tl_core.extraction import collate_samples, pool_windows
from tl_core.heads import MulticlassHead
from tl_core.linear_path import TIGHT, LinearProblem, moments, rotate
from tl_core.manifest import Manifest
from tl_core.registry import Registry, load_registry
from tl_core.training.drawing import even_batches
from tl_core.training.schedule import share
from tl_core.training.sources import RawSource
from tl_core.types import Backbone, Prepared, State

EPOCHS, BATCH, LR, HEAD_LR, DECAY, WARMUP, MAX_NORM = 5, 16, 1e-4, 3e-4, 0.01, 0.1, 1.0
STRENGTH = 30.0  # of the probe that the head starts from


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("TL_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=RESULTS / "selection_truth.json")
    arguments = parser.parse_args()
    registry = load_registry()
    kept: dict[str, Any] = json.loads(arguments.results.read_text()) if arguments.results.is_file() else {}
    for case in (CASES[name] for name in arguments.only):
        manifest = manifest_of(registry, arguments.data, case, ROOT / ".tl")
        runs = kept.setdefault(case.dataset, {})
        for seed in arguments.seeds:
            for name, twin in case.candidates:
                key = f"{name}{'' if twin is None else ' (random)'} seed {seed}"
                if key not in runs:
                    runs[key] = fine_tuned(registry, arguments.data, case, manifest, name, twin, seed)
                    arguments.results.write_text(json.dumps(kept, indent=0, sort_keys=True) + "\n")
                    print(f"{case.dataset} {key}: {runs[key]['accuracy']:.4f}, "
                          f"{runs[key]['cpu_seconds']:.0f} CPU s", flush=True)  # fmt: skip


def fine_tuned(
    registry: Registry, data: Path, case: Case, manifest: Manifest, name: str, twin: int | None, seed: int
) -> dict[str, Any]:
    """One fine-tuning: test accuracy, which test rows it got right (a string of 0 and 1), and its CPU seconds."""
    cpu, started = time.process_time(), time.perf_counter()
    torch.manual_seed(seed)
    backbone = spec_of(registry, data, name, case.modality).build(twin)
    samples = RawSource(manifest, registry.loader(case.modality), backbone)
    rows, test = training_rows(manifest, case), manifest.rows("test")
    train = [p for _, batch in samples.batches([rows]) for p in batch]
    y = torch.from_numpy(manifest.target_array(rows))
    head = MulticlassHead(backbone.feature_dim, manifest.targets.outputs)
    head.requires_grad_(True)
    features = predicted(backbone, None, train)
    mean, scale = moments(features)
    head.mean.copy_(mean)
    head.scale.copy_(scale.clamp_min(0.01 * float(scale.median())))
    turned = rotate(features, head.mean, head.scale)
    problem = LinearProblem(turned.rows, turned.energy, y, "multiclass", manifest.targets.outputs)
    probe = turned.from_axes(problem.solve(STRENGTH, None, TIGHT))
    with torch.no_grad():
        head.linear.weight.copy_(probe.weight)
        head.linear.bias.copy_(probe.bias)
    _train(backbone, head, train, y, seed, case)
    right = np.concatenate([
        predicted(backbone, head, prepared).argmax(dim=1).numpy() == manifest.target_array(part)
        for part, prepared in samples.batches(np.array_split(test, max(1, len(test) // 256)))
    ])  # fmt: skip
    return {
        "accuracy": round(float(right.mean()), 6),
        "right": "".join("01"[int(r)] for r in right),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "training_rows": len(rows),
        "params": sum(p.numel() for p in backbone.parameters()),
    }


def _train(backbone: Backbone, head: MulticlassHead, train: list[Prepared], y: Tensor, seed: int, case: Case) -> None:
    backbone.requires_grad_(True)
    if case.modality == "image":
        backbone.to(memory_format=torch.channels_last)
    groups = []
    trained: tuple[tuple[torch.nn.Module, float], ...] = ((backbone, LR), (head, HEAD_LR))
    for module, lr in trained:
        groups.append({"params": [p for p in module.parameters() if p.ndim > 1], "lr": lr, "weight_decay": DECAY})
        groups.append({"params": [p for p in module.parameters() if p.ndim <= 1], "lr": lr, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups)
    total = EPOCHS * math.ceil(len(train) / BATCH)
    course = TuneConfig(warmup=WARMUP, schedule="cosine")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share(course, step, total))
    rng = np.random.default_rng(seed)
    for _ in range(EPOCHS):
        backbone.train()
        for module in backbone.modules():
            if isinstance(module, _BatchNorm):
                module.eval()  # 16 rows are too few to estimate statistics by
        for batch in even_batches(rng.permutation(len(train)), BATCH):
            prepared = [train[i] for i in batch]
            if case.modality == "image":
                prepared = [_varied(one, rng, case.flip) for one in prepared]
            loss = head.loss(head(_embedded(backbone, prepared)), y[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_([*backbone.parameters(), *head.parameters()], MAX_NORM)
            optimizer.step()
            schedule.step()
    backbone.eval()


def _varied(prepared: Prepared, rng: np.random.Generator, flip: bool) -> Prepared:
    """An image shifted by up to a tenth of its side (edges repeated), mirrored half the time where that is allowed."""
    x = prepared.windows[0]["x"]
    reach = x.shape[-1] // 10
    shift = rng.integers(-reach, reach + 1, 2)
    down, right = (torch.arange(side).add(int(by)).clamp(0, side - 1) for side, by in zip(x.shape[-2:], shift))
    x = x[:, down][:, :, right]
    if flip and rng.random() < 0.5:
        x = x.flip(-1)
    return Prepared(({"x": x},))


def _embedded(backbone: Backbone, prepared: list[Prepared]) -> Tensor:
    outputs, owners = [], []
    for _, batch, owner in collate_samples(backbone, prepared):
        with torch.autocast("cpu", torch.bfloat16):
            state: State = backbone(batch)
        outputs.append(state["x"].float())
        owners.append(owner)
    return pool_windows(torch.cat(outputs), torch.cat(owners), len(prepared))


@torch.no_grad()
def predicted(backbone: Backbone, head: MulticlassHead | None, prepared: list[Prepared]) -> Tensor:
    """Logits (embeddings without a head) of prepared samples, float32 [N, C]."""
    parts = [_embedded(backbone, prepared[at : at + 32]) for at in range(0, len(prepared), 32)]
    embeddings = torch.cat(parts)
    return embeddings if head is None else head(embeddings)


if __name__ == "__main__":
    main()
