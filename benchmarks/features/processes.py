"""Child processes with what they took: CPU seconds with those of their own children, and memory over time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.features.setting import ROOT

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Child:
    """What a process left and took. answer: the JSON object on the last line of its output; curve: (seconds, bytes
    resident, bytes of those that are no file's) over its life."""

    answer: dict[str, Any]
    seconds: float
    cpu_seconds: float
    curve: tuple[tuple[float, int, int], ...]


def child(module: str, arguments: Sequence[str], every: float | None = None) -> Child:
    """Run `python -m module arguments...` to its end, its memory sampled every so many seconds.

    Raises RuntimeError with the end of its complaint where it fails.
    """
    command = [sys.executable, "-m", module, *arguments]
    clock = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    output: list[str] = ["", ""]
    readers = [threading.Thread(target=_drain, args=(process, output, which)) for which in range(2)]
    curve: list[tuple[float, int, int]] = []
    stop = threading.Event()
    if every is not None:
        readers.append(threading.Thread(target=_watch, args=(process.pid, clock, every, stop, curve)))
    for reader in readers:
        reader.start()
    _, status, usage = os.wait4(process.pid, 0)  # with the CPU time of all its children
    seconds = time.perf_counter() - clock
    process.returncode = os.waitstatus_to_exitcode(status)
    stop.set()
    for reader in readers:
        reader.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} ended with {process.returncode}: {output[1].strip()[-2000:]}")
    return Child(
        answer=json.loads(output[0].strip().splitlines()[-1]),
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        curve=tuple(curve),
    )


def _drain(process: subprocess.Popen[str], output: list[str], which: int) -> None:
    stream = (process.stdout, process.stderr)[which]
    assert stream is not None  # both are pipes
    with stream:
        output[which] = stream.read()


def _watch(pid: int, clock: float, every: float, stop: threading.Event, curve: list[tuple[float, int, int]]) -> None:
    while not stop.wait(every):
        try:
            total, shared = (int(n) * _PAGE for n in Path(f"/proc/{pid}/statm").read_text().split()[1:3])
        except (OSError, ValueError):  # just ended
            return
        if total:
            curve.append((round(time.perf_counter() - clock, 2), total, total - shared))
