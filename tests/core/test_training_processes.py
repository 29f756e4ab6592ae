"""Two processes that train together, as `accelerate launch` starts them, against one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jobs import PlainMaps, job_of, write_maps
from safetensors.torch import load_file
from together import still
from torch import Tensor

from tl_core.errors import UserError
from tl_core.training import finetune, fit
from tl_core.training.processes import Processes, processes

SCRIPT = Path(__file__).parents[1] / "support" / "together.py"

# 21 rows in batches of 7 do not fall into even halves
CASES: list[dict[str, Any]] = [
    # nothing that sees a batch as a whole: the same but for float
    {"update": "biases", "lr": 1e-3, "head_lr": 1e-2, "l2_sp": 0.1, "ema": 0.5, "train_from": 2, "batch_size": 7},
    # batch-norm, which each process has statistics of its own for
    {"lr": 1e-3, "head_lr": 1e-2, "save_minutes": 0, "batch_size": 7, "batch_norm": "update"},
    {"epochs": 1, "search": {"trials": 3, "storage": "sqlite:///FOLDER/search.db"}},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left."""
    root = tmp_path_factory.mktemp("together")
    write_maps(root).save(root / "manifest.parquet")
    # with --cpu, accelerate leaves several processes to MPI, and starts one where that is missing
    launch = "--multi_gpu --num_processes 2 --num_machines 1 --num_cpu_threads_per_process 1 --main_process_port 0"
    plain = "--mixed_precision no --dynamo_backend no"
    command = [sys.executable, "-m", "accelerate.commands.launch", *launch.split(), *plain.split()]
    command += [str(SCRIPT), str(root), json.dumps(CASES).replace("FOLDER", str(root))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parent), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root


def left(folder: Path, case: int, index: int) -> tuple[dict[str, Tensor], dict[str, Any], np.ndarray]:
    name = f"{case}-{index}-of-2"
    facts, said = json.loads((folder / f"{name}.json").read_text())
    return load_file(folder / f"{name}.safetensors"), facts, np.array(said)


def alone(root: Path, case: int, **more: Any) -> tuple[dict[str, Tensor], dict[str, Any], np.ndarray]:
    fitted = fit(job_of(write_maps(root / "data"), root, loader=PlainMaps(), backbone=still, **CASES[case], **more))
    assert fitted.backbone is not None
    tensors = {**fitted.backbone.state_dict(), **{f"head.{k}": v for k, v in fitted.head.state_dict().items()}}
    return tensors, fitted.facts, fitted.said


def losses(facts: dict[str, Any]) -> list[float]:
    return [row["loss"] for row in facts["finetune"]["history"]]


def test_all_processes_end_with_the_same_bytes(folder: Path) -> None:
    for case in range(len(CASES)):
        (first, facts, said), (second, other_facts, other_said) = left(folder, case, 0), left(folder, case, 1)
        assert facts == other_facts
        assert np.array_equal(said, other_said)
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_two_processes_learn_what_one_does(folder: Path, tmp_path: Path) -> None:
    together, facts, said = left(folder, 0, 0)
    tensors, facts_alone, said_alone = alone(tmp_path, 0)
    np.testing.assert_allclose(said, said_alone, atol=1e-4)
    assert losses(facts) == pytest.approx(losses(facts_alone), abs=1e-3)
    for name, tensor in together.items():
        assert torch.allclose(tensor.float(), tensors[name].float(), atol=1e-3), name


def test_batch_norm_sees_each_process_s_share(folder: Path, tmp_path: Path) -> None:
    """As it sees the parts of a batch that memory does not hold at once."""
    _, facts, said = left(folder, 1, 0)
    _, facts_alone, said_alone = alone(tmp_path, 1, memory_batch=4)
    np.testing.assert_allclose(said, said_alone, atol=0.1)
    assert losses(facts) == pytest.approx(losses(facts_alone), rel=0.2)


def test_only_the_first_process_writes_the_state(folder: Path) -> None:
    """It is under the one folder that both were given, whole."""
    assert [path.name for path in (folder / "2-1" / "state").iterdir()] == ["training.safetensors"]


def test_each_trial_of_a_search_is_kept_once(folder: Path) -> None:
    import optuna

    storage = f"sqlite:///{folder / 'search.db'}"
    assert [len(optuna.load_study(study_name=name, storage=storage).trials) for name in
            optuna.get_all_study_names(storage)] == [3]  # fmt: skip
    _, facts, _ = left(folder, 2, 0)
    assert facts["search"]["trials"] == 3


def test_a_measured_number_is_the_main_process_s(folder: Path) -> None:
    _, facts, _ = left(folder, 0, 0)
    assert facts["agreed"] == 2.0**38


def test_without_accelerate_one_process_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate.state", None)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert processes(torch.device("cpu")) == Processes(0, 1, torch.device("cpu"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="need accelerate: pip install 'tl-core\\[tune\\]'"):
        processes(torch.device("cpu"))


def test_a_batch_must_be_enough_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = Processes(0, 2, torch.device("cpu"))
    monkeypatch.setattr(sys.modules[finetune.__module__], "processes", lambda device: two)
    with pytest.raises(UserError) as caught:
        fit(job_of(write_maps(tmp_path / "data", 4, 4), tmp_path, batch_size=1))
    assert str(caught.value) == (
        "config key 'tune.batch_size' can't be 1 with 2 processes, which share a batch; allowed: 2 or more"
    )


def test_one_process_alone_needs_nobody() -> None:
    one = Processes(0, 1, torch.device("cpu"))
    rows, tensor = np.arange(5), torch.ones(3)
    assert one.main
    assert np.array_equal(one.share(rows), rows)
    one.mean([tensor], 2.0)
    assert torch.equal(tensor, torch.ones(3))
    assert one.joined(tensor, 3) is tensor
    assert (one.any(True), one.any(False)) == (True, False)
    assert [len(Processes(i, 3, torch.device("cpu")).share(rows)) for i in range(3)] == [2, 2, 1]
