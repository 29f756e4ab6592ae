"""The starter's pretraining, in small: killed and resumed it ends with the same bytes, and it learns."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tl_audio
import torch

from tl_core import UserError

ROOT = Path(__file__).resolve().parents[3]
STARTER = Path(tl_audio.__file__).parent / "starter"
SMALL = {"patches": 8, "rounds": 1, "steps": 30, "batch": 4, "warmup": 3, "log_every": 2, "save_every": 2}


@pytest.fixture(autouse=True)
def _as_the_command_runs(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(name="starter")
def starter_fixture(tmp_path: Path) -> Path:
    folder = tmp_path / "starter"
    folder.mkdir()
    shutil.copy(STARTER / "config.json", folder)
    return folder


def test_killed_and_resumed_gives_the_same_bytes(tmp_path, starter):
    from samples.pretrain.audio.pretraining import pretrain
    from samples.pretrain.audio.settings import Settings
    from samples.pretrain.export import export

    settings = Settings(**SMALL)

    def run(work: Path) -> tuple[bytes, dict]:
        pretrain(settings, work, starter)
        export(work / "checkpoint.safetensors", starter, work / "record.json", settings.facts())
        return (starter / "model.safetensors").read_bytes(), json.loads((work / "record.json").read_text())

    whole, record = run(tmp_path / "whole")
    killed = tmp_path / "killed"
    (sounds,) = (tmp_path / "whole").glob("sounds-*")
    shutil.copytree(sounds, killed / sounds.name)
    numbers = [text for key, value in SMALL.items() for text in (f"--{key.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "samples.pretrain.audio", "--work", str(killed), "--starter", str(starter)]
    child = subprocess.Popen([*command, "--record", str(killed / "record.json"), *numbers], cwd=ROOT)
    while child.poll() is None and not (killed / "checkpoint.safetensors").is_file():
        time.sleep(0.005)
    child.kill()
    child.wait()
    assert (killed / "checkpoint.safetensors").is_file()  # else nothing would be resumed below
    assert not (killed / "record.json").exists()
    resumed, again = run(killed)
    assert resumed == whole
    assert again["curve"] == record["curve"]
    assert [row["step"] for row in record["curve"]] == list(range(2, 31, 2))
    assert record["curve"][-1]["loss"] < record["curve"][0]["loss"]
    config = json.loads((starter / "config.json").read_text())
    assert config["provenance"]["safetensors_sha256"] == record["sha256"]


def test_a_checkpoint_of_another_run_is_refused(tmp_path, starter):
    from samples.pretrain.audio.pretraining import pretrain
    from samples.pretrain.audio.settings import Settings
    from samples.pretrain.export import export

    work, settings = tmp_path / "work", Settings(**SMALL | {"steps": 2})
    checkpoint, record = work / "checkpoint.safetensors", tmp_path / "record.json"
    with pytest.raises(UserError, match=r"no checkpoint .*; pretrain first"):
        export(checkpoint, starter, record, settings.facts())
    with pytest.raises(UserError, match="save_every 3 is no multiple of log_every 2"):
        pretrain(replace(settings, save_every=3), work, starter)
    assert not work.exists()  # nothing was synthesised for that
    pretrain(settings, work, starter)
    other = replace(settings, describe=1.0, seed=7)
    with pytest.raises(UserError, match=r"trained with seed 1, not 7; describe 4\.0, not 1\.0; export it with its own"):
        export(checkpoint, starter, record, other.facts())
    with pytest.raises(UserError, match="another run"):
        pretrain(replace(settings, describe=1.0), work, starter)
    config = json.loads((starter / "config.json").read_text())
    config["pretrained_cfg"]["mean"] = [-3.0]
    (starter / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="another run"):  # what the network is shown has changed
        pretrain(settings, work, starter)
    assert sorted(path.name for path in starter.iterdir()) == ["config.json"]
    assert not record.exists()


def test_sounds(tmp_path):
    from samples.pretrain.audio.sounds import Cuts, front_end, synthesise
    from samples.pretrain.audio.synthesizer import descriptors, draw_patches

    sounds = synthesise(tmp_path, STARTER, 12, 2, 3)
    first = (tmp_path / "round001.npz").read_bytes()
    (tmp_path / "round001.npz").unlink()
    again = synthesise(tmp_path, STARTER, 12, 2, 3)
    assert (tmp_path / "round001.npz").read_bytes() == first
    assert (sounds.mel == again.mel).all()
    assert sounds.mel.shape == (24, 200, 64)
    assert (sounds.mel[:12] != sounds.mel[12:]).any(axis=(1, 2)).all()  # another instance of each patch
    assert (sounds.mel.max(axis=(1, 2)) > 100).all()
    batch, labels = Cuts(sounds, front_end(STARTER)).draw(16, 5)
    assert batch.shape == (16, 1, 96, 64)
    assert batch.isfinite().all()
    assert batch.min() >= (torch.tensor(1e-4).log() + 4) / 4 - 1e-4  # nothing is quieter than digital silence
    assert labels.max() < 12
    assert descriptors(draw_patches(12, 3)).isfinite().all()
