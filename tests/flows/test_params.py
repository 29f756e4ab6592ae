"""Edits to params.yaml keep what the user wrote around the values."""

from __future__ import annotations

from pathlib import Path

import pytest
from tl_flows.params import edit_params
from tl_flows.scaffold import params_text

from tl_core.errors import UserError

TEXT = """\
# mine
seed: 0   # of everything
modality: null # guessed

tune:   # how
    lr: 1e-3
    strengths: [1.0, 0.1]  # few
"""


def test_values_change_and_comments_stay(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace("1e-3", "0.001"))
    config = edit_params(path, {"tune.lr": 0.01, "tune.epochs": 3, "data.label": "kind"})
    assert (config.tune.lr, config.tune.epochs, config.data.label) == (0.01, 3, "kind")
    text = path.read_text()
    assert text.startswith("# mine\nseed: 0   # of everything\nmodality: null # guessed\n\ntune:   # how\n")
    assert "strengths: [1.0, 0.1] " in text
    assert "# few" in text


def test_without_edits_the_file_is_only_read(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("seed:    7\n")
    assert edit_params(path, {}).seed == 7
    assert path.read_text() == "seed:    7\n"


def test_an_invalid_edit_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("seed: 7\n")
    with pytest.raises(UserError, match=r"unknown config key 'tune\.learning'"):
        edit_params(path, {"tune.learning": 1, "seed": 8})
    assert path.read_text() == "seed: 7\n"


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("seed: [1\n")
    with pytest.raises(UserError, match=r"unreadable config .*params\.yaml"):
        edit_params(path, {})


def test_a_generated_file_changes_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(params_text("data"))
    before = path.read_text().splitlines()
    edit_params(path, {"tune.strategy": "finetune"})
    changed = [(old, new) for old, new in zip(before, path.read_text().splitlines(), strict=True) if old != new]
    ((old, new),) = changed
    assert old.startswith("  strategy: auto # auto: ")
    assert new == old.replace("strategy: auto", "strategy: finetune", 1)
