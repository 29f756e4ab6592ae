"""The OpenVINO engine: it agrees with torch or is refused, and its converted models are kept."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_nets import (
    CPU,
    NETS,
    Net,
    assert_rows_agree,
    assert_same,
    bert,
    chosen,
    cnn,
    images,
    texts,
    through,
)
from torch import nn

from tl_core import State
from tl_core.engines import TorchEngine, choice, cpu, openvino_engine

pytestmark = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
needs_bfloat16 = pytest.mark.skipif(not cpu.has_bfloat16(), reason="this CPU has no bfloat16")


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
@pytest.mark.parametrize("name", NETS)
def test_openvino_agrees_with_torch(name: str, precision: str) -> None:
    make, batches = NETS[name]
    for stop in (None, 2):
        net = make()
        engine, note = chosen(net, batches(), engine="openvino", precision=precision, stop=stop)
        assert note is None
        assert engine.name.startswith("openvino-20")
        shapes = [batches(8), batches(3, seed=1), batches(8, seed=2), batches(1, seed=3)]
        found, again = through(engine, *shapes), through(engine, *shapes)
        expected = through(TorchEngine(make(), stop, CPU, "float32"), *shapes)
        for a, b, twin in zip(found, expected, again):
            assert_rows_agree(a, b, precision)
            assert_same(a, twin)
            assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in a.values())


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("name", NETS)
def test_a_row_depends_on_neither_company_nor_place(name: str, engine: str, precision: str) -> None:
    make, batches = NETS[name]
    used, note = chosen(make(), batches(), engine=engine, precision=precision)
    assert note is None
    mine = {key: tensor[:1] for key, tensor in batches().items()}
    rows = []
    for seed in range(3):
        company = batches(8, seed=seed + 10)
        for place in (0, 3, 7):
            batch = {key: tensor.clone() for key, tensor in company.items()}
            for key in batch:
                batch[key][place] = mine[key][0]
            rows.append(through(used, batch)[0]["x"][place])
    assert all(torch.equal(row, rows[0]) for row in rows[1:])


@pytest.mark.parametrize("name", NETS)
def test_a_batch_does_not_depend_on_those_before(name: str, tmp_path: Path) -> None:
    make, rows = NETS[name]
    batches = [rows(8), rows(3, seed=1), rows(1, seed=2), rows(8, seed=3)]
    if name == "bert":
        batches += [texts(8, 8), texts(8, 24)]
    found = through(chosen(make(), rows(), engine="openvino", folder=tmp_path)[0], *batches)
    turned = through(chosen(make(), rows(), engine="openvino", folder=tmp_path)[0], *reversed(batches))
    for a, b in zip(found, reversed(turned)):
        assert_same(a, b)


def test_lengths_vary_and_strange_batches_go_to_torch() -> None:
    net = bert()
    engine, note = chosen(net, texts(2, 8), engine="openvino")
    assert note is None
    batches = [texts(4, width) for width in (8, 16, 5, 64)]
    for found, expected in zip(through(engine, *batches), through(TorchEngine(net, None, CPU, "float32"), *batches)):
        assert_rows_agree(found, expected, "float32")
    odd = {**texts(), "types": torch.zeros(8, 16, dtype=torch.int64)}
    [found] = through(engine, odd)
    assert_rows_agree(found, through(TorchEngine(net, None, CPU, "float32"), texts())[0], "float32")


def test_many_batches_in_order_and_a_caller_who_stops() -> None:
    engine, _ = chosen(bert(), texts(), engine="openvino")
    batches = [texts(4, 8 + i % 5, seed=i) for i in range(40)]
    taken = 0

    def counted() -> Iterator[tuple[int, State]]:
        nonlocal taken
        for item in enumerate(batches):
            taken += 1
            yield item

    keys = []
    for key, state in engine.run(counted()):
        keys.append(key)
        assert state["x"].shape == (4, 32)
        assert taken - len(keys) <= 6  # bounded
    assert keys == list(range(40))
    stream = engine.run(enumerate(batches))
    next(stream)
    stream.close()  # type: ignore[attr-defined]


def test_converted_models_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, note = chosen(cnn(), images(), engine="openvino", folder=tmp_path)
    assert note is None
    [folder] = (tmp_path / "engines").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["meta.json", "model.bin", "model.xml"]
    assert json.loads((folder / "meta.json").read_text())["proven"] == {"float32": [cpu.cpu_name()]}
    with monkeypatch.context() as patch:
        patch.setattr(openvino_engine, "convert", lambda *args: pytest.fail("converted again"))
        patch.setattr(openvino_engine, "differs", lambda *args: pytest.fail("proven again"))
        again, _ = chosen(cnn(), images(), engine="openvino", folder=tmp_path)
        assert_same(through(first, images())[0], through(again, images())[0])
        assert chosen(cnn(), images(), folder=tmp_path)[0].kind == "openvino"  # auto: it costs nothing
    with monkeypatch.context() as patch:
        patch.setattr(openvino_engine, "cpu_name", lambda: "Another CPU")
        patch.setattr(openvino_engine, "convert", lambda *args: pytest.fail("converted again"))
        chosen(cnn(), images(), engine="openvino", folder=tmp_path)
    assert json.loads((folder / "meta.json").read_text())["proven"] == {"float32": [cpu.cpu_name(), "Another CPU"]}
    weights = bytearray((folder / "model.bin").read_bytes())
    weights[100] ^= 1
    (folder / "model.bin").write_bytes(weights)
    mended, note = chosen(cnn(), images(), engine="openvino", folder=tmp_path)
    assert note is None
    assert_same(through(first, images())[0], through(mended, images())[0])
    assert (folder / "model.bin").read_bytes() != weights
    for meta in ("", "[]", '{"format": 2}'):
        (folder / "meta.json").write_text(meta)
        assert chosen(cnn(), images(), engine="openvino", folder=tmp_path)[1] is None
    assert [path.name for path in (tmp_path / "engines").iterdir()] == [folder.name]  # nothing left aside


def test_of_two_processes_that_convert_at_once_both_take_one_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert, models = openvino_engine.convert, []

    def late(*args: Any) -> Any:
        if not models:  # another process begins later and is done first
            models.append(None)
            chosen(cnn(), images(), engine="openvino", folder=tmp_path)
            models.append((next((tmp_path / "engines").iterdir()) / "model.bin").stat().st_ino)
        return convert(*args)

    monkeypatch.setattr(openvino_engine, "convert", late)
    assert chosen(cnn(), images(), engine="openvino", folder=tmp_path)[1] is None
    [folder] = (tmp_path / "engines").iterdir()
    assert (folder / "model.bin").stat().st_ino == models[1]
    monkeypatch.setattr(openvino_engine, "convert", lambda *args: pytest.fail("converted again"))
    chosen(cnn(), images(), engine="openvino", folder=tmp_path)


def test_a_store_without_room_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    engine, note = chosen(cnn(), images(), engine="openvino", folder=tmp_path / "file")
    assert (engine.kind, note) == ("openvino", None)


def test_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    for name, age in (("old", 2 * 86400), ("new", 60)):
        path = tmp_path / "engines" / f".aside-{name}"
        path.mkdir(parents=True)
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    chosen(cnn(), images(), engine="openvino", folder=tmp_path)
    assert [path.name for path in (tmp_path / "engines").glob(".*")] == [".aside-new"]


class Tally(nn.Module):
    """A Python number made of a shape, which a trace freezes: other values for other batches."""

    def forward(self, state: State) -> State:
        return {"x": state["x"].float().flatten(1) / int(torch.tensor(len(state["x"])))}


def test_an_engine_that_gives_other_values_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net([("tally", Tally())], 3072, "tally")
    engine, note = chosen(net, images(), engine="openvino", folder=tmp_path)
    assert engine.kind == "torch"
    assert note is not None
    assert note.startswith("computing with torch: OpenVINO gives other values (by 0.")
    assert note.endswith(" of their length, allowed is 0.001)")
    monkeypatch.setattr(choice, "_automatic", lambda *args: "openvino")
    monkeypatch.setattr(openvino_engine, "convert", lambda *args: pytest.fail("converted again"))
    assert chosen(net, images(), folder=tmp_path)[1] == note


class Stubborn(nn.Module):
    def forward(self, state: State) -> State:
        if torch.jit.is_tracing():
            raise ValueError("this network won't be traced\nby anyone")
        return {"x": state["x"].float().flatten(1)}


def test_what_cannot_be_converted_falls_back_with_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net([("stubborn", Stubborn())], 3072, "stubborn")
    root = logging.getLogger()
    before = root.level, root.filters[:], root.handlers[:]
    engine, note = chosen(net, images(), engine="openvino", folder=tmp_path)
    assert (root.level, root.filters, root.handlers) == before
    assert engine.kind == "torch"
    assert note is not None
    assert note.startswith("computing with torch: OpenVINO can't convert it: ")
    assert "\n" not in note
    through(engine, images())
    monkeypatch.setattr(choice, "_automatic", lambda *args: "openvino")
    monkeypatch.setattr(openvino_engine, "convert", lambda *args: pytest.fail("tried again"))
    assert chosen(net, images(), folder=tmp_path)[1] == note


def test_bfloat16_without_hardware_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "has_bfloat16", lambda: False)
    engine, note = chosen(cnn(), images(), engine="openvino", precision="bfloat16")
    assert engine.name.startswith("torch-")
    assert note == f"computing with torch: OpenVINO finds no bfloat16 on {cpu.cpu_name()}"


def test_openvino_errors_reach_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = chosen(bert(), texts(), engine="openvino")
    outside = texts()
    outside["x"][0, 0] = 10**6  # no such word
    with contextlib.suppress(RuntimeError):  # some releases check, others clamp
        through(engine, texts(), outside, texts())
    monkeypatch.setattr(engine, "_torch", None)
    with pytest.raises(AttributeError):
        through(engine, texts())


def test_converting_stays_at_home(tmp_path: Path) -> None:
    """No network, no other process (but ldconfig, which torch asks), no file outside of the store: no telemetry."""
    (tmp_path / "home").mkdir()
    code = (
        "import sys\n"
        "seen = []\n"
        "sys.addaudithook(lambda name, args: seen.append((name, args)) if name.startswith('socket.') or name in "
        "('subprocess.Popen', 'os.fork', 'os.posix_spawn', 'os.mkdir') else None)\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from engine_nets import chosen, cnn, images, through\n"
        f"engine, note = chosen(cnn(), images(), engine='openvino', folder=Path({str(tmp_path / 'store')!r}))\n"
        "through(engine, images())\n"
        "assert engine.kind == 'openvino', note\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
        f"print([s for s in seen if {str(tmp_path / 'store')!r} not in str(s) and 'ldconfig' not in str(s)])\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert list((tmp_path / "home").iterdir()) == []
