"""Where a run's files lie: step outputs, resume state, run facts and the feature store."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BACKBONES_LOCK = "backbones.lock"  # beside params.yaml: which weights a run's backbones have
STEPS = ("version", "select", "extract", "tune", "evaluate")


@dataclass(frozen=True)
class Workspace:
    """root: the project, or `--out`; store: the feature store's folder; cache: checks and digests by stat.

    Step outputs lie in `artifacts/<step>/` and hold no times or host facts; those go to `.tl/run/<step>.json`.
    """

    root: Path
    store: Path
    cache: Path

    def step(self, name: str) -> Path:
        """The output folder of a step."""
        return self.root / "artifacts" / name

    @property
    def manifest(self) -> Path:
        return self.step("version") / "manifest.parquet"

    @property
    def quarantine(self) -> Path:
        return self.step("version") / "quarantine.csv"

    @property
    def ranking(self) -> Path:
        return self.step("select") / "ranking.json"

    @property
    def receipt(self) -> Path:
        return self.step("extract") / "receipt.json"

    @property
    def tuning(self) -> Path:
        return self.step("tune") / "tune.json"

    @property
    def model(self) -> Path:
        return self.step("tune") / "model"

    @property
    def models(self) -> Path:
        """Models of other commits, each in a folder by its md5; a linked worktree has those of the main one."""
        return self.cache.parent / "bundles"

    @property
    def metrics(self) -> Path:
        return self.step("evaluate") / "metrics.json"

    @property
    def state(self) -> Path:
        """Resume state and run facts; no stage output."""
        return self.root / ".tl"

    def run_file(self, step: str) -> Path:
        """Times, counts and host facts of the step's last run."""
        return self.state / "run" / f"{step}.json"


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all (temporary file beside it, flushed, then renamed)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8, newlines as they are) whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with sorted keys, whole or not at all; the same value gives the same bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
