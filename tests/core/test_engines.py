"""The torch engine, and what all engines share: scales, names, precision, the choice."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_nets import CPU, NETS, assert_rows_agree, bert, chosen, cnn, images, texts, through, vit

from tl_core import State, UserError
from tl_core.engines import (
    EngineOutOfMemory,
    TorchEngine,
    choice,
    cpu,
    describe,
    disagreement,
    eager,
    halve,
    heap,
    resolve_device,
    resolve_precision,
    shapes,
)

# the torch engine


def test_convolutions_are_channels_last_and_others_as_they_were() -> None:
    net = cnn()
    net.register_module("video", torch.nn.Conv3d(2, 2, 3))
    TorchEngine(net, None, CPU, "float32")
    [first, *_] = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d)]
    assert first.weight.is_contiguous(memory_format=torch.channels_last)
    assert net.get_submodule("video").weight.is_contiguous()


def test_a_program_that_allows_tf32_does_not_allow_it_in_features() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        with eager._repeatable(torch.device("cuda")):
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("name", NETS)
def test_torch_in_float32_is_the_backbones_own_forward(name: str) -> None:
    make, batches = NETS[name]
    net = make()
    for stop in (None, 1, 2, len(net.segments)):
        [found] = through(TorchEngine(net, stop, CPU, "float32"), batches())
        expected = make()(batches(), 0, stop)
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-4, atol=1e-5)
            assert found[key].is_contiguous()


@pytest.mark.parametrize("name", NETS)
def test_the_last_segment_runs_in_float32(name: str) -> None:
    make, batches = NETS[name]
    net = make()
    seen: dict[str, bool] = {}
    for segment in net.segments:
        net.segments[segment].register_forward_hook(
            lambda module, args, out, segment=segment: seen.update({segment: torch.is_autocast_enabled("cpu")})
        )
    [found] = through(TorchEngine(net, None, CPU, "bfloat16"), batches())
    assert seen == {segment: segment != "pool" for segment in net.segments}
    assert found["x"].dtype == torch.float32
    [inner] = through(TorchEngine(net, 2, CPU, "bfloat16"), batches())
    assert inner["x"].dtype == torch.float32


def test_memory_errors_come_after_what_was_in_the_air(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TorchEngine(cnn(), None, CPU, "float32")
    monkeypatch.setattr(engine, "_ahead", 1)  # as on a GPU
    forward = engine.forward
    errors: list[Exception] = [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ]

    def tight(state: State) -> State:
        if len(state["x"]) > 4:
            raise errors[0]
        return forward(state)

    monkeypatch.setattr(engine, "forward", tight)
    while errors:
        stream = engine.run(enumerate([images(4), images(4), images(8), images(4)]))
        assert [next(stream)[0], next(stream)[0]] == [0, 1]
        with pytest.raises(EngineOutOfMemory, match="with 8 rows"):
            next(stream)
        assert engine.overflowed == 8
        errors.pop(0)
    monkeypatch.setattr(engine, "forward", lambda state: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        through(engine, images())


def test_memory_is_handed_back() -> None:
    if heap._glibc() is None:
        pytest.skip("another C library")
    with heap.reused_memory():
        torch.zeros(10**7).add_(1)
    torch.zeros(10**7).add_(1)


# scale


def test_halving_is_kept(tmp_path: Path) -> None:
    net, batch = cnn(), images()
    engine, _ = chosen(net, batch, folder=tmp_path)
    assert (engine.scale, engine.batch_size(8), (tmp_path / "shapes.json").exists()) == (1.0, 8, False)
    engine.overflowed = 8
    smaller = halve(engine, tmp_path)
    assert (smaller.scale, smaller.batch_size(8), smaller.batch_size(1)) == (0.5, 4, 1)
    assert smaller.name == engine.name
    assert chosen(net, batch, folder=tmp_path)[0].scale == 0.5
    assert chosen(net, batch, folder=tmp_path, precision="bfloat16")[0].scale == 1.0
    assert chosen(net, batch, folder=tmp_path, stop=1)[0].scale == 1.0
    smaller.overflowed = 4
    assert halve(halve(smaller, tmp_path), tmp_path).batch_size(8) == 1
    assert halve(engine, tmp_path).scale == 0.125  # where another process has come to meanwhile
    smaller.overflowed = 1
    with pytest.raises(UserError, match="one sample at a time through cnn does not fit into the memory; free some, or"):
        halve(smaller, tmp_path)


def test_scale_of_a_gpu_follows_its_memory() -> None:
    assert [shapes.scale_for(gb * 10**9) for gb in (0, 1, 3, 8, 16, 80)] == [1, 2, 4, 16, 32, 32]


def test_a_damaged_file_of_shapes_counts_as_none(tmp_path: Path) -> None:
    for text in ("", "[1]", '{"a": "b"}', '{"a": -1}', "{"):
        (tmp_path / "shapes.json").write_text(text)
        engine, _ = chosen(cnn(), images(), folder=tmp_path)
        assert engine.scale == 1.0
    engine.overflowed = 8
    assert halve(engine, tmp_path).scale == 0.5
    assert list(json.loads((tmp_path / "shapes.json").read_text()).values()) == [0.5]


def test_processes_keep_shapes_at_once(tmp_path: Path) -> None:
    engines = [TorchEngine(vit(), stop, CPU, precision) for stop in (1, 2, 3) for precision in ("float32", "bfloat16")]
    threads = [threading.Thread(target=halve, args=(engine, tmp_path)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [shapes.kept_scale(engine, tmp_path).scale for engine in engines] == [0.5] * 6


def test_a_folder_that_takes_no_files_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    engine, _ = chosen(cnn(), images(), folder=tmp_path / "file")
    assert halve(engine, tmp_path / "file").scale == 0.5


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *args: Any, **kwargs: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    engine, _ = chosen(cnn(), images(), folder=tmp_path)
    monkeypatch.setattr(Path, "write_text", full)
    assert halve(engine, tmp_path).scale == 0.5
    assert {path.name for path in tmp_path.iterdir()} <= {"shapes.json.lock"}


# names


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    version = torch.__version__.partition("+")[0]
    engine = TorchEngine(vit(), 2, CPU, "bfloat16")
    assert engine.name == f"torch-{version}-cpu"
    assert (engine.cut, TorchEngine(vit(), None, CPU, "float32").cut) == ("block1", "end")
    monkeypatch.setattr("tl_core.engines.engine.threads", lambda: 1)
    monkeypatch.setattr("tl_core.engines.engine.cpu_name", lambda: "Some CPU (AVX2)")
    assert describe(engine) == f"torch {version}, bfloat16, 1 thread on Some CPU (AVX2)"


def test_resolve_device() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UserError, match="device cuda:99 is not there"):
        resolve_device("cuda:99")
    for name in ("tpu", "cuda:x"):
        with pytest.raises(UserError, match="no device"):
            resolve_device(name)


def test_resolve_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("float32", "bfloat16"):
        assert resolve_precision(name, CPU, {"bfloat16": 5, "float32": 5}) == name
    for native, best in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("tl_core.engines.device.has_bfloat16", lambda native=native: native)
        assert resolve_precision("auto", CPU, {}) == best
        assert resolve_precision("auto", CPU, {"float32": 3, "bfloat16": 3}) == best
        assert resolve_precision("auto", CPU, {"float32": 3, "bfloat16": 2}) == "float32"
        assert resolve_precision("auto", CPU, {"float32": 3, "bfloat16": 4}) == "bfloat16"
    with pytest.raises(UserError, match="no precision 'half'; extract\\.precision takes auto, float32, bfloat16"):
        resolve_precision("half", CPU, {})


def test_cpu_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "flags", lambda: frozenset({"avx2", "avx512f", "avx512_bf16", "amx_bf16"}))
    monkeypatch.setattr(cpu, "_field", lambda name: "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz")
    assert cpu.cpu_name() == "Intel Xeon Platinum 8481C (AMX)"
    assert cpu.has_bfloat16()
    monkeypatch.setattr(cpu, "flags", lambda: frozenset({"avx2"}))
    assert not cpu.has_bfloat16()
    assert 1 <= cpu.threads() <= (os.cpu_count() or 1)


def test_disagreement() -> None:
    row = np.array([3.0, 4.0], np.float32)
    assert disagreement(row, row + np.float32(1e-4), "float32") is None
    assert disagreement(row, row * np.float32(1.01), "bfloat16") is None
    assert disagreement(row, row * np.float32(1.01), "float32") == "by 0.0099 of their length, allowed is 0.001"
    assert disagreement(row, row * np.float32("nan"), "float32") is not None


# compile


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_compile_agrees_with_eager() -> None:
    net, batch = cnn(), images()
    engine, note = chosen(net, batch, engine="compile")
    assert note is None
    assert engine.name == f"torch-compile-{torch.__version__.partition('+')[0]}-cpu"
    [found], [expected] = through(engine, batch), through(TorchEngine(net, None, CPU, "float32"), batch)
    assert_rows_agree(found, expected, "float32")


def test_a_failing_compile_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: Any, **settings: Any) -> Any:
        def fail(state: State) -> State:
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nin a long list")

        return fail

    monkeypatch.setattr(eager.torch, "compile", broken)
    engine, note = chosen(cnn(), images(), engine="compile")
    assert note == "computing with torch: torch.compile fails: InvalidCxxCompiler: No working C++ compiler found"
    assert engine.kind == "torch"
    through(engine, images())


def test_compile_pays_back_on_a_gpu_only() -> None:
    gpu = torch.device("cuda")
    rows = int(choice.COMPILE_FROM)
    assert choice._automatic(cnn(), gpu, "bfloat16", 3, rows, None, images()) == "compile"
    assert choice._automatic(cnn(), gpu, "bfloat16", 3, 1000, None, images()) == "torch"
    assert choice._automatic(bert(), gpu, "bfloat16", 4, rows, None, texts()) == "torch"
    assert choice._automatic(cnn(), CPU, "bfloat16", 3, rows, None, images()) != "compile"


def test_auto_on_a_cpu_goes_by_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    net = cnn()
    rows = int(choice.CONVERT_FROM / choice.flops_of(net, 3, images())) + 1
    for version, expected in (("2026.4.1", "openvino"), (None, "torch")):
        monkeypatch.setattr(choice, "openvino_version", lambda version=version: version)
        assert choice._automatic(net, CPU, "float32", 3, rows, None, images()) == expected
        assert choice._automatic(net, CPU, "float32", 3, rows - 1, None, images()) == "torch"
        assert choice._automatic(net, CPU, "float32", 1, rows, None, images()) == "torch"  # only the span counts


def test_openvino_wanted_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "openvino_version", lambda: None)
    with pytest.raises(UserError, match=r"openvino, which is not installed: pip install 'tl-core\[openvino\]'"):
        chosen(cnn(), images(), engine="openvino")
    monkeypatch.setattr(choice, "openvino_version", lambda: "2026.4.1")
    with pytest.raises(UserError, match=r"which computes on the CPU, and extract\.device is cuda:1"):
        chosen(cnn(), images(), engine="openvino", device=torch.device("cuda:1"))
