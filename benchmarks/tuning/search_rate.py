"""How many trials a minute a search over the probe's settings makes, from stored embeddings.

    OMP_NUM_THREADS=1 python -m benchmarks.tuning.search_rate [--data FOLDER] [--trials 1000] [--rows 2000]

Question types (trec6, six classes) by the first layers of MiniLM, whose rows are in the feature store. What a search
costs is told in all, and for its fits alone; the rest is Optuna's suggestions and copies. CPU seconds are those of the
process, which other programs on the machine do not lengthen. Results: benchmarks/results/tuning_search_rate.{json,md}.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.features.setting import machine
from benchmarks.selection.setting import RESULTS, ROOT
from benchmarks.tuning.strategies import TEXT, Set, extracted, set_job, some_of, split_job
from tl_core.registry import load_registry
from tl_core.training.job import Job
from tl_core.training.search import search
from tl_core.training.search_probe import ProbeTrials
from tl_core.workspace import write_json, write_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("TL_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=2000)
    arguments = parser.parse_args()
    job = prepared(arguments.data, arguments.rows)
    found = {"machine": machine(), "rows": len(job.train), "validation_rows": len(job.val)}
    found |= measured(
        job.tuned(strategy="probe", search=job.config.tune.search.model_copy(update={"trials": arguments.trials}))
    )
    write_json(RESULTS / "tuning_search_rate.json", found)
    write_text(RESULTS / "tuning_search_rate.md", page(found))
    print(page(found))


def prepared(data: Path, rows: int) -> Job:
    """A job whose embeddings are in the store."""
    job = set_job(load_registry(), data, Set("trec6", "text", TEXT), 0)
    chosen = some_of(job.manifest, np.concatenate([job.train, job.val]), rows // len(job.task.classes), 0)
    job = split_job(job, chosen, 0)
    extracted(job, job.val)
    return job


def measured(job: Job) -> dict[str, Any]:
    """Seconds of a whole search and of its fits alone."""
    shutil.rmtree(job.state, ignore_errors=True)
    cpu, started = time.process_time(), time.perf_counter()
    facts = search(job).facts
    whole = time.process_time() - cpu, time.perf_counter() - started
    cpu = time.process_time()
    again = search(job).facts
    resumed = time.process_time() - cpu
    assert again == facts, "a search that is done stays as it is"
    shutil.rmtree(job.state, ignore_errors=True)
    cpu = time.process_time()
    trials = ProbeTrials(job)
    rng = np.random.default_rng(0)
    for strength in np.exp(rng.uniform(np.log(1e-3), np.log(1e4), facts["trials"])):
        trials({"strength": float(strength), "balance": bool(rng.integers(2))})
    fits = time.process_time() - cpu
    return {
        "trials": facts["trials"],
        "cpu_seconds": round(whole[0], 2),
        "seconds": round(whole[1], 2),
        "fits_cpu_seconds": round(fits, 2),
        "read_back_cpu_seconds": round(resumed, 2),
        "best": facts["best"],
        "first": facts["values"][0],
    }


def page(found: dict[str, Any]) -> str:
    """The result in words."""
    trials, cpu = found["trials"], found["cpu_seconds"]
    return (
        f"# Search from stored embeddings\n\n{trials:,} trials on {found['rows']:,} rows, judged on "
        f"{found['validation_rows']:,}: **{60 * trials / cpu:,.0f} trials a minute** of one core "
        f"({60 * trials / found['seconds']:,.0f} by the clock). Of {cpu:.1f} CPU seconds the fits take "
        f"{found['fits_cpu_seconds']:.1f}; the rest is Optuna's. A search that is done is read back in "
        f"{found['read_back_cpu_seconds']:.1f} s. Accuracy on validation: {found['first']:.3f} with the config's "
        f"settings, {found['best']['value']:.3f} with the best.\n\nMachine: "
        + ", ".join(f"{key} {value}" for key, value in found["machine"].items())
        + "\n"
    )


if __name__ == "__main__":
    main()
