"""A fit that is killed anywhere and started again ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "support" / "resumed.py"

# with dropout, batch-norm and augmentation, which all of them have
CASES: dict[str, dict[str, Any]] = {
    "ema": {
        "batch_norm": "update",
        "save_minutes": 0,
        "find_lr": True,
        "ema": 0.9,
        "balance": True,
        "mix": "mixup",
        "epochs": 4,
    },
    "lp_ft": {"save_minutes": 0, "strategy": "lp_ft", "wise": 0.7, "l2_sp": 0.1, "layer_decay": 0.5},
    "gradual": {"batch_norm": "update", "save_minutes": 60, "strategy": "gradual", "epochs": 6, "memory_batch": 3},
    "lora": {"save_minutes": 0, "update": "lora", "precision": "float16", "label_smoothing": 0.1},
    "contrastive": {
        "save_minutes": 0,
        "strategy": "contrastive",
        "batch_norm": "update",
        "ema": 0.9,
        "wise": 0.7,
        "epochs": 4,
        "memory_batch": 2,
    },
    "warm start": {"save_minutes": 0, "strategy": "lp_ft", "wise": 0.7, "l2_sp": 0.1, "epochs": 4, "goes_on": True},
    "search": {"save_minutes": 0, "search": {"trials": 12}},
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """All cases in one go: what they import takes longer than they do."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parent), "HF_HUB_OFFLINE": "1"}
    command = [
        sys.executable,
        str(SCRIPT),
        str(tmp_path_factory.mktemp("resumed")),
        json.dumps(CASES),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("case", CASES)
def test_killed_at_random_steps(told: dict[str, dict[str, Any]], case: str) -> None:
    assert len(told[case]["by"]) >= 2
    assert told[case]["result"] == told[case]["whole"]


def test_a_search_had_trials_to_end_early(told: dict[str, dict[str, Any]]) -> None:
    assert json.loads(told["search"]["whole"])["pruned"] > 0


def test_each_signal_was_among_them(told: dict[str, dict[str, Any]]) -> None:
    signals = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT}
    assert {number for case in told.values() for number in case["by"]} == signals
