"""CPU seconds of the first run, of another head setting and of 1% more texts, each a process, above its start-up."""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.features.material import read_table, texts, write_table
from benchmarks.features.models import minilm_folder
from benchmarks.features.processes import Child, child
from benchmarks.features.setting import Setup, fast_engine, say

CASES = ("texts",)
SUBJECTS = "benchmarks.features.subjects"
RUNS = ("first", "other_setting", "more_texts")
# tl tries a path of strengths anyway; another setting is another path. scikit-learn gets its one strength.
STRENGTHS = {"first": "1000,300,100,30,10,3,1,0.3,0.1", "other_setting": "500,50,5,0.5", "more_texts": "500,50,5,0.5"}
INVERSE = {"first": "1", "other_setting": "10", "more_texts": "10"}


def measure(case: str, setup: Setup) -> dict[str, Any]:
    """The three runs of either side, in turn, as often as there are rounds; start-up is measured beside each."""
    count = setup.sized(2000, 200)
    more = max(1, count // 100)
    source = read_table(texts(setup, 2 * count))
    work = setup.cache / "reruns"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    tables = {
        "first": work / "texts.csv",
        "other_setting": work / "texts.csv",
        "more_texts": work / "more" / "texts.csv",
    }
    write_table(tables["first"], source[:count])
    write_table(tables["more_texts"], source[: count + more])
    folder = minilm_folder(setup)
    raw: dict[str, dict[str, list[dict[str, Any]]]] = {side: {run: [] for run in RUNS} for side in ("tl", "rival")}
    raw["tl"]["first_converted"] = []
    for number in range(setup.sized(2, 1)):
        ours = work / f"tl-{number}"
        for run in RUNS:
            table = str(tables[run])
            raw["tl"][run].append(_above(work, "transfer", table, str(ours), STRENGTHS[run]))
            if number == 0:  # half a minute each, and hardly another number the second time
                raw["rival"][run].append(_above(work, "encode", table, str(folder), INVERSE[run]))
        # the first run again where the model was converted by an earlier one: other texts went through the store
        other = work / f"converted-{number}"
        write_table(other / "texts.csv", source[count : count + 60])
        child(SUBJECTS, ["transfer", str(other / "texts.csv"), str(other), "1", fast_engine()])
        raw["tl"]["first_converted"].append(
            _above(work, "transfer", str(tables["first"]), str(other), STRENGTHS["first"])
        )
    medians = {
        side: {run: round(median(found["cpu_above"] for found in runs), 3) for run, runs in by_run.items()}
        for side, by_run in raw.items()
    }
    return {
        "texts": count,
        "more_texts": more,
        "runs": raw,
        "cpu_seconds_above_start": medians,
        "ratios": {
            run: round(medians["rival"]["first" if run == "first_converted" else run] / max(seconds, 0.01), 2)
            for run, seconds in medians["tl"].items()
        },
    }


def _above(work: Path, *subject: str) -> dict[str, Any]:
    """One process and, after it, one that imports what it had imported; what it took above that."""
    modules = work / "modules.json"
    ran = child(SUBJECTS, ["--modules", str(modules), *subject])
    start = child(SUBJECTS, ["imports", str(modules)])
    say(f"  {subject[0]}: {ran.cpu_seconds:.1f} CPU seconds, {start.cpu_seconds:.1f} of them start-up")
    return {
        "cpu_seconds": round(ran.cpu_seconds, 3),
        "start_cpu_seconds": round(start.cpu_seconds, 3),
        "cpu_above": round(ran.cpu_seconds - start.cpu_seconds, 3),
        "seconds": round(ran.seconds, 3),
        **_told(ran),
    }


def _told(ran: Child) -> dict[str, Any]:
    keys = ("computed", "reused", "engine", "precision", "accuracy", "test_rows")
    return {key: ran.answer[key] for key in keys if key in ran.answer}
