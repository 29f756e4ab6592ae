"""The parts by name: each a module with CASES and measure(case, setup), which gives JSON-able values."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.features.setting import Setup
from tl_core.errors import UserError, did_you_mean

PARTS = (
    "images", "texts", "sounds", "reruns", "no_change", "memory", "kills", "two_processes", "probe_accuracy", "gpu",
)  # fmt: skip


def cases(part: str) -> tuple[str, ...]:
    """The names of a part's cases. Raises UserError where there is no such part."""
    if part not in PARTS:
        raise UserError(f"no part {part!r}{did_you_mean(part, PARTS) or ';'} allowed: {', '.join(PARTS)}")
    found: tuple[str, ...] = import_module(f"benchmarks.features.{part}").CASES
    return found


def chosen(requests: list[str]) -> list[tuple[str, str]]:
    """(part, case) of requests such as `images` and `images:resnet50`; all where there is none.

    Raises UserError naming every request that can't be met.
    """
    found: list[tuple[str, str]] = []
    faults: list[str] = []
    for request in requests or PARTS:
        part, _, case = request.partition(":")
        try:
            there = cases(part)
        except UserError as error:
            faults.append(str(error))
            continue
        if case and case not in there:
            faults.append(f"no case {case!r} of {part}{did_you_mean(case, there) or ';'} allowed: {', '.join(there)}")
        found += [(part, name) for name in there if case in ("", name)]
    if faults:
        raise UserError("; ".join(faults))
    return list(dict.fromkeys(found))


def measured(part: str, case: str, setup: Setup) -> dict[str, Any]:
    """One case's numbers."""
    found: dict[str, Any] = import_module(f"benchmarks.features.{part}").measure(case, setup)
    return found
