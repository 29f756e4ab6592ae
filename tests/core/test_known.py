"""What is remembered of a backbone must never outlive what it was built from."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fake_bytes import FakeBackbone

from tl_core.bundle import backbone_facts
from tl_core.steps import known
from tl_core.steps.backbone import Lazy
from tl_core.steps.known import KnownBackbones, key_of
from tl_core.types import Backbone, BackboneSpec

built: list[int | None] = []


def build(spec: BackboneSpec, seed: int | None) -> Backbone:
    built.append(seed)
    return FakeBackbone(seed or 0)


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackboneSpec]:
    """A backbone in a folder, built by a package that lies outside of all installed ones."""
    monkeypatch.setattr(known, "SETTLED_NS", 0)
    monkeypatch.setattr(known, "BEGAN", 2**62)  # as if this process were newer than the code that tests write
    package = tmp_path / "code" / "strange_plugin"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (tmp_path / "code" / "strange_helper.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(build, "__module__", "strange_plugin")
    built.clear()
    yield BackboneSpec("fake", "bytes", "folder", str(weights), partial(build))
    for name in ("strange_plugin", "strange_helper"):
        sys.modules.pop(name, None)


def facts(spec: BackboneSpec, cache: Path, seed: int | None = None) -> dict[str, object]:
    return Lazy(spec, seed).facts("fake", cache)


def test_facts_are_remembered(spec: BackboneSpec, tmp_path: Path) -> None:
    first = facts(spec, tmp_path)
    assert first == backbone_facts(spec, "fake", FakeBackbone())
    assert json.dumps(facts(spec, tmp_path)) == json.dumps(first)  # in the same order, too
    assert built == [None]
    assert facts(spec, tmp_path, seed=3)["fingerprint"] != first["fingerprint"]
    assert built == [None, 3]


@pytest.mark.parametrize("changed", ["weights/model.safetensors", "code/strange_plugin/__init__.py"])
def test_a_change_is_seen(spec: BackboneSpec, tmp_path: Path, changed: str) -> None:
    facts(spec, tmp_path)
    (tmp_path / changed).write_bytes(b"other  ")
    facts(spec, tmp_path)
    assert built == [None, None]


def test_a_new_file_or_distribution_is_seen(spec: BackboneSpec, tmp_path: Path) -> None:
    keys = {key_of(spec, "fake", None)}
    (tmp_path / "weights" / "config.json").write_text("{}")
    keys.add(key_of(spec, "fake", None))
    (tmp_path / "code" / "pillow-99.dist-info").mkdir()
    keys.add(key_of(spec, "fake", None))
    assert len(keys) == 3


def test_a_linked_folder_beside_the_weights_is_seen(spec: BackboneSpec, tmp_path: Path) -> None:
    pooling = tmp_path / "elsewhere" / "config.json"
    pooling.parent.mkdir()
    pooling.write_text('{"pooling": "mean"}')
    (tmp_path / "weights" / "1_Pooling").symlink_to(pooling.parent)
    before = key_of(spec, "fake", None)
    pooling.write_text('{"pooling": "cls "}')
    assert key_of(spec, "fake", None) not in (before, None)


@pytest.mark.parametrize("newer", ["strange_plugin/__init__.py", "strange_helper.py", "pillow-99.dist-info/METADATA"])
def test_code_that_changed_under_a_running_process_is_not_remembered(
    spec: BackboneSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newer: str
) -> None:
    """The process runs what it loaded before, while the disk already has what the next one will run."""
    import strange_helper  # noqa: F401

    time.sleep(0.05)
    monkeypatch.setattr(known, "BEGAN", time.time_ns())
    time.sleep(0.05)
    assert key_of(spec, "fake", None) is not None
    path = tmp_path / "code" / newer
    path.parent.mkdir(exist_ok=True)
    path.write_text("# other code")
    facts(spec, tmp_path)
    monkeypatch.setattr(known, "BEGAN", 2**62)  # the next process
    facts(spec, tmp_path)
    facts(spec, tmp_path)
    assert built == [None, None]


def test_this_process_began_a_while_ago() -> None:
    assert 0 < time.time_ns() - known._began() < 86_400 * 10**9
    assert known._began() == pytest.approx(known.BEGAN, abs=10**8)


def test_code_that_no_version_speaks_for_is_seen(spec: BackboneSpec, tmp_path: Path) -> None:
    import strange_helper  # type: ignore[import-not-found]  # as the plugin's own code would

    facts(spec, tmp_path)
    facts(spec, tmp_path)
    assert built == [None]
    Path(strange_helper.__file__).write_text("# other code")
    facts(spec, tmp_path)
    assert built == [None, None]


def test_what_was_changed_a_moment_ago_is_not_remembered(
    spec: BackboneSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "SETTLED_NS", 10**18)
    assert key_of(spec, "fake", None) is None
    KnownBackbones(tmp_path).put(None, {})
    facts(spec, tmp_path)
    facts(spec, tmp_path)
    assert built == [None, None]


def test_what_turns_out_wrong_is_forgotten(spec: BackboneSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = key_of(spec, "fake", None)
    wrong = backbone_facts(spec, "fake", FakeBackbone(7))
    known_backbones = KnownBackbones(tmp_path)
    known_backbones.put(key, wrong)
    lazy = Lazy(spec)
    assert lazy.facts("fake", tmp_path) == wrong
    lazy()
    assert known_backbones.get(key) is None
    known_backbones.close()
