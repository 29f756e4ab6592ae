"""kill -9 during extract and during tune: the same command again finishes, with the bytes of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tl_core.workspace import STEPS

LABELS = {
    "parcel": ("my parcel {n} has not arrived", "where is parcel {n}", "the courier lost {n}", "no tracking of {n}"),
    "refund": (
        "please refund order {n}",
        "i want my money back for {n}",
        "when do i get {n} back",
        "{n} charged twice",
    ),
}
SETTINGS = (
    "--backbone", "all-minilm-l6-v2-first3",
    "--set", "tune.strategy=finetune",
    "--set", "tune.epochs=1",
    "--set", "evaluate.scratch_minutes=0",  # nothing is killed there
    "--set", "evaluate.robustness=0",
    "--set", "evaluate.explain=0",
)  # fmt: skip


@pytest.fixture
def messages(tmp_path: Path) -> Path:
    lines = [
        f"{text.format(n=100 + 7 * i)} {'and please answer soon ' * (i % 12)},{label}"
        for label, texts in LABELS.items()
        for text in texts
        for i in range(12)
    ]
    path = tmp_path / "messages.csv"
    path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    return path


def start(step: str, messages: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tl_flows", step, "--data", str(messages), "--out", str(out), *SETTINGS]
    env = {**os.environ, "XDG_CACHE_HOME": str(out.parent / f"cache-{out.name}"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(step: str, messages: Path, out: Path) -> float:
    """Run a step to its end; the seconds it took."""
    started = time.monotonic()
    process = start(step, messages, out)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return time.monotonic() - started


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bytes(messages: Path, tmp_path: Path) -> None:
    calm, harsh = tmp_path / "calm", tmp_path / "harsh"
    seconds = {step: finish(step, messages, calm) for step in STEPS}
    for step in STEPS:
        if step in ("extract", "tune"):
            for share in (0.6, 0.9):
                process = start(step, messages, harsh)
                time.sleep(share * seconds[step])
                process.send_signal(signal.SIGKILL)
                process.communicate()
        finish(step, messages, harsh)
    for name in ("tune/model/head.safetensors", "tune/model/backbone.safetensors", "evaluate/metrics.json"):
        assert (calm / "artifacts" / name).read_bytes() == (harsh / "artifacts" / name).read_bytes(), name
