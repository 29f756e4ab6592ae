"""Whether fine-tuning that goes on from yesterday's model is quicker or better than one from the pretrained weights.

    OMP_NUM_THREADS=1 python -m benchmarks.tuning.warm_start [--data FOLDER] [--draws 3]

Each draw takes 28 rows of each class by its seed, a seventh of them for validation, and fine-tunes on them (lp_ft, 10
epochs). Then two more rows of each class arrive for training, 8%, and the network is fine-tuned again: from the
pretrained weights and from the first model, for 10, 3 and 1 epochs. Test rows (at most 400) only score. Every draw is
kept in benchmarks/results/tuning_warm_start.json as soon as it is done, and is not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from benchmarks.selection.setting import RESULTS, ROOT
from benchmarks.tuning.strategies import SETS, Set, extracted, set_job, some_of, split_job
from tl_core.registry import Registry, load_registry
from tl_core.training import Fitted, Job, fit, predict_rows
from tl_core.training.seen import Seen
from tl_core.training.start import Start
from tl_core.watch import watch_metric
from tl_core.workspace import write_json

FIRST, LATER = 28, 2  # rows of each class: sign_digits has 30 for training
EPOCHS = (10, 3, 1)
TEST_ROWS = 400
USED = tuple(one for one in SETS if one.dataset in ("sign_digits", "trec6", "fsdd"))
FILE = RESULTS / "tuning_warm_start.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("TL_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--draws", type=int, default=3)
    arguments = parser.parse_args()
    registry = load_registry()
    kept: dict[str, Any] = json.loads(FILE.read_text()) if FILE.is_file() else {}
    for draw in range(arguments.draws):
        for of in USED:
            key = f"{of.dataset} draw {draw}"
            if key not in kept:
                kept[key] = run(registry, arguments.data, of, draw)
                write_json(FILE, kept)
                FILE.with_suffix(".md").write_text(page(kept))
                print(f"{key}: {kept[key]}", flush=True)


def run(registry: Registry, data: Path, of: Set, draw: int) -> dict[str, Any]:
    """Test accuracy of the first model, and of each way to train the second."""
    job = set_job(registry, data, of, draw).tuned(strategy="lp_ft", curve=False)
    pool = np.concatenate([job.train, job.val])
    first = some_of(job.manifest, pool, FIRST, draw)
    more = np.setdiff1d(some_of(job.manifest, pool, FIRST + LATER, draw), first)
    test = some_of(job.manifest, job.manifest.rows("test"), TEST_ROWS // len(job.task.classes), 0)
    before = split_job(job, first, draw)
    after = before.replace(train=np.sort(np.concatenate([before.train, more])))
    extracted(after, test)
    model = fitted(before.tuned(epochs=EPOCHS[0]))
    found: dict[str, Any] = {
        "rows": len(before.train), "more": len(more), "test_rows": len(test), "first": accuracy(before, model, test),
        "cold": {}, "warm": {},
    }  # fmt: skip
    for epochs in EPOCHS:
        mine = after.tuned(epochs=epochs)
        found["cold"][str(epochs)] = accuracy(mine, fitted(mine), test)
        warm = mine.replace(start=start_of(model, before))
        found["warm"][str(epochs)] = accuracy(warm, fitted(warm), test)
    return found


def fitted(job: Job) -> Fitted:
    """A fit that no other one's state has a part in."""
    mine = job.replace(state=job.state / f"warm_{os.getpid()}")
    done = fit(mine)
    shutil.rmtree(mine.state, ignore_errors=True)
    return done


def start_of(model: Fitted, job: Job) -> Start:
    """A model as another training goes on from it."""
    assert model.backbone is not None
    prefixes = tuple(f"segments.{name}." for name in model.trained)
    weights = {name: tensor for name, tensor in model.backbone.state_dict().items() if name.startswith(prefixes)}
    seen = Seen.of(job.manifest, job.train, job.val)
    return Start("0" * 32, model.trained, weights, model.head.state_dict(), job.task.classes, seen)


def accuracy(job: Job, model: Fitted, test: np.ndarray) -> float:
    """On test rows, by the model as it predicts from raw samples."""
    assert model.backbone is not None
    said = predict_rows(job.manifest, test, job.loader, model.backbone, model.head, job.device)
    return round(watch_metric("multiclass", said, job.manifest.target_array(test)), 6)


def page(kept: Mapping[str, Any]) -> str:
    """The draws as a table, and the differences over all of them."""
    lines = [
        "# Fine-tuning from yesterday's model",
        "",
        "`OMP_NUM_THREADS=1 python -m benchmarks.tuning.warm_start`: lp_ft, test accuracy in percent, 8% more rows.",
        "",
        "| set, draw | rows | first model | " + " | ".join(f"cold {e} | warm {e}" for e in EPOCHS) + " |",
        "|" + "---|" * (3 + 2 * len(EPOCHS)),
    ]
    for key, found in kept.items():
        each = " | ".join(f"{100 * found[how][str(e)]:.1f}" for e in EPOCHS for how in ("cold", "warm"))
        lines.append(f"| {key} | {found['rows']} + {found['more']} | {100 * found['first']:.1f} | {each} |")
    lines += ["", "Warm minus cold, over all draws:", ""]
    for warm, cold in [(e, e) for e in EPOCHS] + [(e, EPOCHS[0]) for e in EPOCHS[1:]]:
        gaps = [100 * (one["warm"][str(warm)] - one["cold"][str(cold)]) for one in kept.values()]
        error = stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else float("nan")
        told = f"warm {warm} against cold {cold} epochs"
        lines.append(f"- {told}: {mean(gaps):+.1f} points (standard error {error:.1f}, {len(gaps)} draws)")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
