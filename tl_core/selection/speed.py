"""How quick the machine is at networks, roughly and once: what turns select.minutes into work."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from tl_core.engines import cpu_name, threads
from tl_core.torch_threads import one_torch_thread
from tl_core.workspace import write_json

FILE = "speed.json"

_SECONDS = 0.15  # of each of three measurements
_LEAST = 5  # repetitions of each, also on a machine that is busy with other things
_IMAGES = {"cpu": 4, "cuda": 256}  # a GPU would wait for its next kernel most of the time
_SIZE = 28  # pixels


def speed_of(device: torch.device, precision: str, cache: Path) -> float:
    """FLOP/s that networks reach on the device in a precision class: a power of two, measured once and kept.

    Kept in `cache/speed.json` by device, class and number of threads, so that a rerun plans the same work; a file that
    can't be read or written costs no more than measuring again.
    """
    where = cpu_name() if device.type == "cpu" else torch.cuda.get_device_name(device)
    name = f"{where}, {precision}, {threads()} threads"
    kept = _read(cache / FILE)
    if name not in kept:
        kept[name] = rounded(measured(device, precision))
        with contextlib.suppress(OSError):
            write_json(cache / FILE, kept)
    return kept[name]


def measured(device: torch.device, precision: str) -> float:
    """FLOP/s over a dense convolution, a separable one and a matrix product, of as many operations each.

    A rule of thumb: on small networks (MobileNets, SqueezeNet, MiniLM, YAMNet) it is within a factor of two in
    float32, of three in bfloat16; a matrix product alone promises a separable network three times its speed.
    On a CPU one thread is measured by its own time, which other programs on the machine do not lengthen, and
    multiplied.
    """
    cpu = device.type == "cpu"
    with (
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(),
        one_torch_thread() if cpu else contextlib.nullcontext(),
    ):
        torch.manual_seed(0)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            parts = [_fastest(module, x, cpu) / flops for module, x, flops in _parts(device)]
    # small batches don't keep many threads busy
    return len(parts) / sum(parts) * (threads() ** 0.75 if cpu else 1)


def rounded(speed: float) -> float:
    """The nearest power of two: a machine's noise stays within a step, mostly."""
    return float(2.0 ** round(math.log2(speed)))


def _parts(device: torch.device) -> Iterator[tuple[nn.Module, Tensor, float]]:
    """Modules with an input and the operations that it takes."""
    n = _IMAGES[device.type]
    pixels = n * _SIZE**2

    def images(channels: int) -> Tensor:
        x = torch.randn(n, channels, _SIZE, _SIZE, device=device)
        return x.contiguous(memory_format=torch.channels_last)

    dense = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())
    separable = nn.Sequential(
        nn.Conv2d(32, 96, 1), nn.ReLU6(), nn.Conv2d(96, 96, 3, padding=1, groups=96), nn.ReLU6(), nn.Conv2d(96, 32, 1)
    )
    for net, channels, weights in ((dense, 64, 64 * 64 * 9), (separable, 32, 32 * 96 * 2 + 96 * 9)):
        yield net.to(device).to(memory_format=torch.channels_last), images(channels), 2.0 * pixels * weights
    tokens = torch.randn(64 * n, 384, device=device)
    yield nn.Linear(384, 1536, device=device), tokens, 2.0 * len(tokens) * 384 * 1536


def _fastest(module: nn.Module, x: Tensor, cpu: bool) -> float:
    """Seconds of the quickest of several forwards: the others were disturbed."""
    clock = time.thread_time if cpu else _cuda_clock
    module(x)
    best, repetitions, end = math.inf, 0, time.perf_counter() + _SECONDS
    while repetitions < _LEAST or time.perf_counter() < end:
        started = clock()
        module(x)
        best = min(best, clock() - started)
        repetitions += 1
    return max(best, 1e-9)


def _cuda_clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def _read(path: Path) -> dict[str, float]:
    """Speeds by device, class and threads; none where the file is missing or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): float(value) for name, value in values.items() if 1 <= float(value) < math.inf}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
