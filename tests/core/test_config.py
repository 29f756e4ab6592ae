from __future__ import annotations

from pathlib import Path

import pytest

from tl_core.config import RunConfig, describe, load_config, parse_overrides
from tl_core.errors import UserError


def test_defaults_need_no_file() -> None:
    assert load_config() == RunConfig()


def test_file_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("seed: 3\ntune: {strategy: probe, lr: 0.1}\n")
    config = load_config(
        path, ["tune.strategy=finetune", "tune.lr=1e-3", "select.backbones=[a, b]", "data.group=author"]
    )
    assert (config.seed, config.tune.strategy, config.tune.lr) == (3, "finetune", 0.001)
    assert config.select.backbones == ("a", "b")
    assert config.data.group == "author"


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        load_config(overrides=["tune.strategi=probe", "data.max_bad=7", "zzz=1", "seed=-1"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert (
        "unknown config key 'tune.strategi'; did you mean strategy, start? allowed in tune: strategy, minutes"
        in str(caught.value)
    )
    assert "unknown config key 'zzz'; allowed: seed, modality" in str(caught.value)
    assert "config key 'data.max_bad' can't be 7" in str(caught.value)


def test_a_section_that_is_no_section() -> None:
    with pytest.raises(UserError, match="config key 'tune' can't be 3"):
        load_config(overrides=["tune=3"])


@pytest.mark.parametrize("text", ["novalue", "=1", "a=[1"])
def test_malformed_overrides(text: str) -> None:
    with pytest.raises(UserError, match="can't read"):
        parse_overrides([text])


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("true", True), ("null", None), ("abc", "abc"), ("1e", "1e"), ("exact", "exact")],
)
def test_override_values(text: str, value: object) -> None:
    assert parse_overrides([f"k={text}"]) == {"k": value}


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", "3"])
def test_unreadable_files(tmp_path: Path, content: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match="unreadable config"):
        load_config(path)


def test_every_key_is_described() -> None:
    keys = {row[0] for row in describe()}
    assert {"seed", "tune.lr", "data.max_bad", "store.path"} <= keys
    assert next(r[:3] for r in describe() if r[0] == "tune.strategy") == (
        "tune.strategy", "auto | probe | finetune | lp_ft | gradual | contrastive | scratch", "auto",
    )  # fmt: skip
