"""The starter's pretraining, in small: killed and resumed it ends with the same bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tl_image
import torch

ROOT = Path(__file__).resolve().parents[3]
STARTER = Path(tl_image.__file__).parent / "starter"
SMALL: dict[str, Any] = {
    "classes": 6, "images": 8, "side": 48, "neck": 16, "steps": 24, "batch": 6, "warmup": 3, "log_every": 2,
    "save_every": 2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _as_the_command_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
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


def test_killed_and_resumed_gives_the_same_bytes(tmp_path: Path, starter: Path) -> None:
    from samples.pretrain.export import export
    from samples.pretrain.image.pretraining import pretrain
    from samples.pretrain.image.settings import Settings

    settings = Settings(**SMALL)

    def run(work: Path) -> tuple[bytes, dict[str, Any]]:
        pretrain(settings, work, starter)
        export(work / "checkpoint.safetensors", starter, work / "record.json", settings.facts())
        return (starter / "model.safetensors").read_bytes(), json.loads((work / "record.json").read_text())

    whole, record = run(tmp_path / "whole")
    killed = tmp_path / "killed"
    numbers = [text for key, value in SMALL.items() for text in (f"--{key.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "samples.pretrain.image", "--work", str(killed), "--starter", str(starter)]
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
    assert [row["step"] for row in record["curve"]] == list(range(2, 25, 2))
    config = json.loads((starter / "config.json").read_text())
    assert config["provenance"]["safetensors_sha256"] == record["sha256"]
    assert (tmp_path / "whole/record.svg").read_text().startswith("<svg")


def test_a_killed_rendering_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from samples.pretrain.image import cache, formulas
    from samples.pretrain.image.settings import Settings

    settings = Settings(**SMALL | {"images": 2, "side": 32})
    monkeypatch.setattr(cache, "_FLUSH_EVERY", 2)
    whole = cache.rendered(settings, tmp_path / "whole.npy")
    render, drawn = formulas.render, []

    def dies(label: int, *arguments: Any) -> torch.Tensor:
        drawn.append(label)
        if drawn == [0, 1, 2, 3]:
            raise KeyboardInterrupt
        return render(label, *arguments)

    monkeypatch.setattr(formulas, "render", dies)
    (tmp_path / "killed.done").write_text("6")  # left over from a file that somebody removed
    with pytest.raises(KeyboardInterrupt):
        cache.rendered(settings, tmp_path / "killed.npy")
    again = cache.rendered(settings, tmp_path / "killed.npy")
    assert drawn == [0, 1, 2, 3, 2, 3, 4, 5]
    assert np.array_equal(again, whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.npy", "whole.npy"]


def test_every_family_draws_its_classes() -> None:
    from samples.pretrain.image import formulas

    shared = formulas.banks(5, 32)
    seen = set()
    for label in range(0, 60, 3):
        images = formulas.render(label, 60, 6, 32, 5, shared).float() / 255
        assert images.shape == (6, 32, 32, 3)
        assert images.std() > 0.02
        assert (images[0] != images[1]).float().mean() > 0.3  # another pose, ground and light
        seen.add(formulas.family(label, 60))
    assert seen == set(formulas.FAMILIES)


def test_each_epoch_deals_every_image_once() -> None:
    from samples.pretrain.image.pretraining import rows_of
    from samples.pretrain.image.settings import Settings

    settings = Settings(**SMALL)
    first, second = (np.concatenate([rows_of(8 * e + s, 48, settings) for s in range(8)]) for e in range(2))
    assert sorted(first) == sorted(second) == list(range(48))
    assert first.tolist() != second.tolist()


def test_augmented_images_are_the_networks_input() -> None:
    from samples.pretrain.image.augment import augmented
    from samples.pretrain.image.settings import Settings

    images = np.random.default_rng(1).integers(0, 256, (5, 40, 40, 3), dtype=np.uint8)
    half, quarter = (0.5,) * 3, (0.25,) * 3
    x = augmented(images, 32, half, quarter, Settings(), np.random.default_rng(3))
    assert x.shape == (5, 3, 32, 32)
    assert x.abs().max() <= 2.0001
    again = augmented(images, 32, half, quarter, Settings(), np.random.default_rng(3))
    assert torch.equal(x, again)
