"""The saved state of a training: whole or not at all, and of no use to another one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch
import torch
from jobs import job_of, write_maps
from safetensors import SafetensorError

from tl_core.training import fit
from tl_core.training.average import Average
from tl_core.training.job import Job
from tl_core.training.state import FILE, read_state, state_key, write_state

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3), "c": torch.zeros(0), "d": torch.ones(2).bool()}
FACTS = {"epoch": 3, "loss": 0.1 + 0.2}


def test_comes_back_as_it_was(tmp_path: Path) -> None:
    mapped = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    tied = {**TENSORS, "e": mapped, "f": mapped}
    assert write_state(tmp_path / "state", "key", FACTS, tied)
    saved = read_state(tmp_path / "state", "key")
    assert saved is not None
    assert saved.facts == FACTS
    assert saved.tensors.keys() == tied.keys()
    assert all(torch.equal(saved.tensors[name], tensor) for name, tensor in tied.items())
    assert [path.name for path in (tmp_path / "state").iterdir()] == [FILE]


def test_another_key_or_none_gives_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_state(tmp_path, "key") is None
    write_state(tmp_path, "key", FACTS, TENSORS)
    assert read_state(tmp_path, "other") is None
    write_state(tmp_path, "other", {}, {})
    assert read_state(tmp_path, "key") is None
    assert caplog.text == ""


@pytest.mark.parametrize("damage", ["empty", "short", "byte", "facts", "text"])
def test_a_damaged_one_is_ignored_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    write_state(tmp_path, "key", FACTS, TENSORS)
    path = tmp_path / FILE
    data = bytearray(path.read_bytes())
    damaged = {
        "empty": b"",
        "short": data[:-5],
        "byte": data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
        "facts": data.replace(b'\\"epoch\\": 3', b'\\"epoch\\": 4'),
        "text": b"not a state at all, but longer than eight bytes",
    }[damage]
    assert damaged != data
    path.write_bytes(damaged)
    assert read_state(tmp_path, "key") is None
    assert f"ignored the saved state of training in {path}, which is damaged: " in caplog.text


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left on device")]
)
def test_a_full_disk_is_told_and_leaves_the_former_state(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    write_state(tmp_path, "key", FACTS, TENSORS)

    def full(tensors: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    assert not write_state(tmp_path, "key", {"epoch": 4}, TENSORS)
    assert f"can't save the state of training in {tmp_path}: " in caplog.text
    assert "No space left on device; training goes on without" in caplog.text
    saved = read_state(tmp_path, "key")
    assert saved is not None
    assert saved.facts == FACTS
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_of(write_maps(tmp_path / "data", train=10, val=4), tmp_path, epochs=2, save_minutes=0)


def test_training_goes_on_where_nothing_can_be_saved(
    job: Job, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(job)
    blocked = job.state.with_name("blocked")
    blocked.write_text("a file where the folder should be")
    again = fit(job.replace(state=blocked))
    assert again.facts == whole.facts
    assert np.array_equal(again.said, whole.said)
    assert "training goes on without" in caplog.text


def test_a_finished_training_is_not_repeated(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(job)
    monkeypatch.setattr("tl_core.training.loop.Training.step", None)
    again = fit(job)
    assert again.facts == whole.facts
    assert np.array_equal(again.said, whole.said)


def test_a_damaged_state_makes_training_begin_anew(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    whole = fit(job)
    (job.state / FILE).write_bytes(b"damaged")
    assert fit(job).facts == whole.facts
    assert "which is damaged" in caplog.text


def test_what_decides_the_outcome_is_in_the_key_and_nothing_else(job: Job, tmp_path: Path) -> None:
    def key(changed: Job, *others: Any) -> str:
        return state_key(changed, *(others or ("fingerprint", "float32", 1, 0)))

    other_labels = job.manifest.table.set_column(4, "label", pa.array(job.manifest.table["label"].to_pylist()[::-1]))
    same = [job, job.replace(state=tmp_path / "elsewhere"), job.tuned(save_minutes=3.0)]
    other = [
        job.tuned(lr=1e-5),
        job.tuned(ema=0.9),
        job.replace(config=job.config.model_copy(update={"seed": 1})),
        job.replace(train=job.train[:-1]),
        job.replace(val=job.val[:-1]),
        job.replace(train=job.train[::-1]),
        job.replace(device=torch.device("cuda")),
        job.replace(manifest=dataclasses.replace(job.manifest, table=other_labels)),
    ]
    plain = ("fingerprint", "float32", 1, 0)
    changed = [(*plain[:i], value, *plain[i + 1 :]) for i, value in enumerate(("other", "bfloat16", 2, 3))]
    assert len({key(one) for one in same}) == 1
    keys = {key(job), *(key(one) for one in other), *(key(job, *one) for one in changed)}
    assert len(keys) == 1 + len(other) + len(changed)


def test_the_average_follows_floats_and_takes_counts_as_they_are() -> None:
    live = {"weight": torch.zeros(3), "batches": torch.tensor(0)}
    average = Average(0.9, live)
    for _ in range(200):
        live["weight"].copy_(torch.ones(3))
        live["batches"] += 1
        average.update()
    expected = 0.0
    for update in range(1, 201):
        expected += (1 - expected) * (1 - min(0.9, (1 + update) / (10 + update)))
    assert torch.allclose(average.tensors["weight"], torch.full((3,), expected))
    assert int(average.tensors["batches"]) == 200
    live["weight"].fill_(5.0)
    with average.swapped_in():
        assert torch.equal(live["weight"], average.tensors["weight"])
    assert torch.equal(live["weight"], torch.full((3,), 5.0))
