"""The machine's speed: measured once, rounded, kept, and roughly what networks reach."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from tl_core.engines import cpu_name, threads
from tl_core.selection import speed
from tl_core.selection.speed import FILE, measured, rounded, speed_of

CPU = torch.device("cpu")


def key(precision: str = "float32") -> str:
    return f"{cpu_name()}, {precision}, {threads()} threads"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_measurement_is_a_plausible_speed(precision: str) -> None:
    before = torch.get_num_threads(), torch.random.get_rng_state()
    assert 1e8 < measured(CPU, precision) < 1e14
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])


def test_it_is_the_harmonic_mean_over_the_parts_and_grows_with_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([1.0, 2.0, 4.0])
    monkeypatch.setattr(speed, "_fastest", lambda *_: next(seconds))
    monkeypatch.setattr(speed, "_parts", lambda _: [(None, None, 4e9)] * 3)
    monkeypatch.setattr(speed, "threads", lambda: 16)
    assert measured(CPU, "float32") == pytest.approx(8 * 3 / (7 / 4e9))


def test_speeds_are_powers_of_two() -> None:
    assert rounded(1.4 * 2**36) == 2**36
    assert rounded(1.5 * 2**36) == 2**37
    assert all(math.log2(rounded(x)) % 1 == 0 for x in (1e9, 3.3e10, 7e13))


def test_it_is_measured_once_for_each_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fake(device: torch.device, precision: str) -> float:
        asked.append(precision)
        return 3e10 * len(asked)

    monkeypatch.setattr(speed, "measured", fake)
    first = speed_of(CPU, "float32", tmp_path / "cache")
    assert first == 2**35
    assert speed_of(CPU, "float32", tmp_path / "cache") == first
    assert speed_of(CPU, "bfloat16", tmp_path / "cache") == 2**36
    assert asked == ["float32", "bfloat16"]
    kept = json.loads((tmp_path / "cache" / FILE).read_text())
    assert kept == {key(): 2**35, key("bfloat16"): 2**36}
    monkeypatch.setattr(speed, "threads", lambda: 99)
    speed_of(CPU, "float32", tmp_path / "cache")
    assert len(asked) == 3


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"x": null}', '{"%s": 0}', '{"%s": "quick"}', '{"%s": 1e999}'])
def test_a_damaged_file_is_measured_over(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "measured", lambda *_: 2.0**35)
    (tmp_path / FILE).write_text(damage.replace("%s", key()))
    assert speed_of(CPU, "float32", tmp_path) == 2**35
    assert json.loads((tmp_path / FILE).read_text()) == {key(): 2**35}


def test_a_cache_that_takes_no_files_costs_only_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "measured", lambda *_: 2.0**35)
    (tmp_path / "file").write_text("")
    assert speed_of(CPU, "float32", tmp_path / "file" / "cache") == 2**35
