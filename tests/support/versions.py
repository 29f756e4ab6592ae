"""Projects in git whose runs are made up: what DVC would have written, without running anything."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tl_flows.model_registry import ModelRegistry
from tl_flows.version_facts import VersionFacts, Watched

OUTS = {"version": "artifacts/version", "tune": "artifacts/tune", "evaluate": "artifacts/evaluate"}


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def make_project(repository: Path, folder: str = ".") -> Path:
    """A project in a folder of a git repository with DVC, without a run; both are made where they are missing."""
    project = (repository / folder).resolve()
    project.mkdir(parents=True, exist_ok=True)
    if not (repository / ".git").exists():
        git(repository, "init", "-q", "-b", "main")
        (repository / ".dvc").mkdir()
        (repository / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
        (repository / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    stages = {stage: {"cmd": "true", "outs": [out]} for stage, out in OUTS.items()}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (project / "params.yaml").write_text("seed: 0\n")
    (project / ".gitignore").write_text("/artifacts\n.tl/\n")
    return project


def report(accuracy: float = 0.9, *, data: str = "data one", rows: int = 100, config: str = "seed: 0\n") -> bytes:
    """The parts of a report.json that the registry reads."""
    interval = {"value": accuracy, "low": accuracy - 0.05, "high": accuracy + 0.05, "method": "bootstrap"}
    facts = {
        "data": {"version": data, "counts": {"train": {"cat": rows}}, "rows": {"train": rows}, "quarantine": []},
        "evaluation": {"watch": "accuracy", "summary": {"accuracy": interval}, "n_test": 200},
        "backbone": {"name": "tiny", "fingerprint": "f1"}, "strategy": "probe", "provenance": {"torch": "2.9"},
        "config": config,
    }  # fmt: skip
    summary = {"metric": "accuracy", "confidence": 0.9, "n_test": 200, **interval}
    return json.dumps({"format": 4, "summary": summary, "facts": facts}).encode()


def outputs(model: bytes, told: bytes | None = None) -> dict[str, bytes]:
    """The outputs of a run whose model is just some bytes."""
    return {
        "artifacts/tune/tune.json": b"{}",
        "artifacts/tune/model/bundle.json": b'{"format": 2}',
        "artifacts/tune/model/head.safetensors": model,
        "artifacts/evaluate/report.json": report() if told is None else told,
    }


def commit_run(project: Path, files: Mapping[str, bytes], message: str = "a run") -> str:
    """Commit a dvc.lock of outputs that lie in DVC's cache alone; the commit's hash."""
    repository = Path(git(project, "rev-parse", "--show-toplevel"))
    stages = {}
    for stage, out in OUTS.items():
        inside = {path.removeprefix(f"{out}/"): data for path, data in files.items() if path.startswith(f"{out}/")}
        entries = [{"md5": _cached(repository, data), "relpath": path} for path, data in sorted(inside.items())]
        if entries:
            md5 = _cached(repository, json.dumps(entries).encode(), ".dir")
            stages[stage] = {"cmd": "true", "outs": [{"path": out, "hash": "md5", "md5": md5}]}
    (project / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "--allow-empty", "-m", message)
    return git(repository, "rev-parse", "HEAD")


def cached(repository: Path, md5: str) -> Path:
    """Where DVC's cache has an object."""
    return repository / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]


def _cached(repository: Path, data: bytes, suffix: str = "") -> str:
    md5 = hashlib.md5(data).hexdigest() + suffix
    path = cached(repository, md5)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return md5


def facts_of(project: Path, commit: str, accuracy: float = 0.9, **more: Any) -> VersionFacts:
    """Facts of a made-up run, without asking DVC."""
    from tl_flows.bundles import digest_at

    watched = Watched("accuracy", accuracy, accuracy - 0.05, accuracy + 0.05, 0.9, 200)
    return VersionFacts("data one", commit, "c" * 64, digest_at(project, commit), watched, **more)


def registered(project: Path, count: int) -> ModelRegistry:
    """A registry with so many versions, each of a model of its own, none of them promoted."""
    registry = ModelRegistry.open(project)
    start = len(registry.state().versions)
    for number in range(start + 1, start + count + 1):
        commit = commit_run(project, outputs(b"model %d" % number), f"run {number}")
        registry.register(commit, facts_of(project, commit))
    return registry
