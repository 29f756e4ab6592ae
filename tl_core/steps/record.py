"""What a step tells about its own run: seconds, CPU seconds, counts and host facts, kept out of its outputs."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from tl_core.errors import UserError
from tl_core.workspace import Workspace, write_json

BEFORE = {"select": "version", "extract": "select", "tune": "extract", "evaluate": "tune"}


@contextmanager
def recorded(workspace: Workspace, step: str) -> Iterator[dict[str, Any]]:
    """Collect a step's small results; on success add its times and the host, and write the run file.

    Raises UserError where the step before has left no outputs.
    """
    before = BEFORE.get(step)
    if before is not None and not workspace.step(before).is_dir():
        raise UserError(f"nothing to {step}: {workspace.step(before)} is missing; run `tl {before}` first, or `tl run`")
    started, clock, cpu = datetime.now(UTC), time.perf_counter(), _cpu_seconds()
    results: dict[str, Any] = {}
    yield results
    results["seconds"] = round(time.perf_counter() - clock, 3)
    results["cpu_seconds"] = round(_cpu_seconds() - cpu, 3)
    results["started"] = started.isoformat(timespec="seconds")
    results["host"] = f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    write_json(workspace.run_file(step), results)


def _cpu_seconds() -> float:
    """Of all threads of this process, and of the processes that it has started and waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
