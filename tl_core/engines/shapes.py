"""The scale of a backbone's batches: chosen once for an engine, and kept, so that forward shapes stay as they are."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from tl_core.engines.engine import Engine
from tl_core.errors import UserError

FILE = "shapes.json"
MAX_SCALE = 32  # 256 images or 16k tokens: a GPU is busy, and larger batches gain nothing

_LOCK_SECONDS = 10.0


def kept_scale(engine: Engine, folder: Path | None) -> Engine:
    """The engine with the scale that earlier runs used; on a GPU a first run chooses it by the free memory.

    A power of two, 2 for each free GB, 32 at most (16 GB and more); 1 on a CPU, which gains nothing by larger batches.
    """
    if engine.device.type == "cpu":
        return engine.scaled(_read(folder).get(_key(engine), 1.0))
    free, _ = torch.cuda.mem_get_info(engine.device)
    return engine.scaled(_update(folder, engine, lambda old: old or scale_for(free)))


def scale_for(free: int) -> float:
    """The scale for so many bytes of free GPU memory."""
    doubled = max(1, 2 * free // 10**9)
    return float(min(MAX_SCALE, 1 << (doubled.bit_length() - 1)))


def halve(engine: Engine, folder: Path | None) -> Engine:
    """An engine that has run out of memory with half its scale, kept in the folder.

    Where another process has gone below that meanwhile, with its scale. Raises UserError where one row did not fit.
    """
    if engine.overflowed == 1:
        where = f"{engine.device.type} memory" if engine.device.type == "cuda" else "memory"
        remedy = "a smaller backbone" if engine.device.type == "cpu" else "extract.device=cpu or a smaller backbone"
        raise UserError(
            f"one sample at a time through {engine.backbone.identity.architecture} does not fit into the {where}; "
            f"free some, or choose {remedy}"
        )
    return engine.scaled(_update(folder, engine, lambda old: min(old or engine.scale, engine.scale / 2)))


def _key(engine: Engine) -> str:
    return f"{engine.backbone.fingerprint} {engine.cut} {engine.name} {engine.precision}"


def _update(folder: Path | None, engine: Engine, change: Callable[[float | None], float]) -> float:
    """Change the kept scale under a lock; where the folder takes no files it only counts for this run."""
    if folder is not None:
        with contextlib.suppress(OSError, Timeout):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{FILE}.lock", timeout=_LOCK_SECONDS):
                scales = _read(folder)
                scale = scales[_key(engine)] = change(scales.get(_key(engine)))
                _write(folder, scales)
                return scale
    return change(_read(folder).get(_key(engine)))


def _read(folder: Path | None) -> dict[str, float]:
    """Scales by key; none where the file is missing or damaged, which costs no more than choosing again."""
    if folder is None:
        return {}
    try:
        values = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {str(key): float(value) for key, value in values.items() if 0 < float(value) <= MAX_SCALE}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _write(folder: Path, scales: dict[str, float]) -> None:
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=f".{FILE}", delete=False, encoding="utf-8") as file:
        part = Path(file.name)
    try:
        part.write_text(json.dumps(scales, indent=1, sort_keys=True), encoding="utf-8")
        part.replace(folder / FILE)
    except OSError:  # a full disk
        part.unlink(missing_ok=True)
        raise
