"""A project whose five steps are one small script: quick, and the same bytes for the same input."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tl_flows.git import git

from tl_core.workspace import STEPS

STAGE = '''\
"""Each step writes what tl's writes, of made-up content: the labels decide the metric, `seed` the weights."""

import csv, json, os, pathlib, sys

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

step = sys.argv[1]
out = pathlib.Path("artifacts", step)
out.mkdir(parents=True, exist_ok=True)
params = yaml.safe_load(pathlib.Path("params.yaml").read_text())
rows = list(csv.DictReader(pathlib.Path("data/rows.csv").open()))
drift = float(os.environ.get("DRIFT", "0"))


def write(name, value):
    (out / name).write_text(json.dumps(value, sort_keys=True))


if step == "version":
    pq.write_table(pa.table({key: [row[key] for row in rows] for key in rows[0]}), out / "manifest.parquet")
elif step == "select":
    write("ranking.json", {"chosen": "tiny"})
elif step == "extract":
    store = pathlib.Path(params.get("store", {}).get("path") or ".tl/shared")
    assert not store.exists(), "the store has to be empty"
    write("receipt.json", {"backbone": {"name": "tiny", "weights": os.environ.get("WEIGHTS", "w1")}})
elif step == "tune":
    (out / "model").mkdir()
    (out / "model" / "head.bin").write_bytes(bytes([params["seed"]]) + str(drift).encode())
    (out / "model" / "bundle.json").write_text(json.dumps({"modality": "text"}))
else:
    right = sum(row["label"] == "a" for row in rows) / len(rows)
    write("metrics.json", {"accuracy": right + drift, "n_test": len(rows)})
    flipped = int(os.environ.get("FLIPPED", "0"))
    predicted = ["b" if i < flipped else "a" for i in range(len(rows))]
    pq.write_table(pa.table({"id": [row["id"] for row in rows], "predicted": predicted}), out / "predictions.parquet")
    write("report.json", {"facts": {"provenance": {"threads": os.environ.get("OMP_NUM_THREADS", "2")}}})
'''


def pipeline() -> str:
    """dvc.yaml of the script's steps."""
    made, stages = [], []
    for step in STEPS:
        outs = [f"artifacts/{step}"]
        metrics = ""
        if step == "evaluate":
            outs = ["artifacts/evaluate/predictions.parquet", "artifacts/evaluate/report.json"]
            metrics = "    metrics:\n      - artifacts/evaluate/metrics.json: {cache: false}\n"
        stages.append(
            f"  {step}:\n    cmd: '\"{sys.executable}\" stage.py {step}'\n"
            f"    deps: [{', '.join(['data', 'stage.py', *made])}]\n    params: [seed]\n"
            f"    outs: [{', '.join(outs)}]\n{metrics}"
        )
        made += [f"artifacts/{step}"] if step != "evaluate" else []
    return "stages:\n" + "".join(stages)


def dvc(root: Path, *arguments: str) -> None:
    quiet = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, check=True, capture_output=True, env=quiet)


def commit(root: Path, message: str) -> str:
    git(root, "add", "--all")
    who = ("-c", "user.name=tests", "-c", "user.email=tests@example.org")
    git(root, *who, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(root, "rev-parse", "HEAD")


def write_labels(root: Path, labels: str) -> None:
    rows = "".join(f"{i},{label}\n" for i, label in enumerate(labels))
    (root / "data" / "rows.csv").write_text(f"id,label\n{rows}")
