"""The CPU at hand: its name, what it can do, and how much of it is ours."""

from __future__ import annotations

import functools
import math
import os
import platform
import re
from pathlib import Path

import torch

_LEVELS = (  # flag in /proc/cpuinfo, how people call it; best first
    ("amx_bf16", "AMX"),
    ("avx512_bf16", "AVX512-BF16"),
    ("avx512f", "AVX512"),
    ("avx2", "AVX2"),
    ("bf16", "BF16"),  # Arm
    ("asimd", "NEON"),
)


def threads() -> int:
    """Threads that computing may take: the process's cores, fewer where a container or OMP_NUM_THREADS says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _quota(), torch.get_num_threads()))


def cpu_name() -> str:
    """`AMD EPYC (AVX512-BF16)`: model and the best instruction set for networks."""
    name = re.sub(r"\((R|TM|r|tm)\)|\bCPU\b|\bProcessor\b|@.*", "", _field("model name")) or platform.processor()
    name = " ".join(name.split()) or platform.machine()
    return next((f"{name} ({called})" for flag, called in _LEVELS if flag in flags()), name)


def has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 natively (AMX or AVX512-BF16), which makes it the faster class."""
    return bool(flags() & {"amx_bf16", "avx512_bf16"})


@functools.cache
def flags() -> frozenset[str]:
    """The instruction sets as /proc/cpuinfo calls them; from torch where there is no such file."""
    found = frozenset((_field("flags") or _field("Features")).split())
    if found:
        return found
    probes = {"amx_bf16": "_is_amx_tile_supported", "avx512_bf16": "_is_avx512_bf16_supported"}
    return frozenset(flag for flag, probe in probes.items() if getattr(torch.cpu, probe, bool)())


@functools.cache
def _field(name: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(rf"^{name}\s*:(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _quota() -> int:
    """Whole cores of the container's CPU quota (cgroup v2, then v1); no limit where none is set."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            folder = Path("/sys/fs/cgroup/cpu")
            quota, period = ((folder / f"cpu.cfs_{n}_us").read_text().strip() for n in ("quota", "period"))
        except OSError:
            return 1 << 16
    if quota in ("max", "-1"):
        return 1 << 16
    return max(1, math.ceil(int(quota) / int(period)))
