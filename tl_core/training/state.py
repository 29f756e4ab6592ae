"""The state of a training on disk, for a run that goes on where another was killed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tl_core.store.spaces import sync_folder

if TYPE_CHECKING:
    from tl_core.training.job import Job

FORMAT_VERSION = 1
FILE = "training.safetensors"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Saved:
    """A state as it was saved. facts: JSON-able; tensors: by name, on the CPU, contiguous."""

    facts: dict[str, Any]
    tensors: dict[str, Tensor]


def state_key(job: Job, fingerprint: str, precision: str, processes: int, start: int) -> str:
    """The digest of everything that decides what a training comes to; a state of another key is of no use.

    fingerprint: the backbone's, before training; precision: of the forward; processes: how many train together;
    start: the segment that batches enter at, which free space on a disk may decide.
    """
    train, val = job.manifest.digests(job.train), job.manifest.digests(job.val)
    labels = hashlib.sha256(job.targets(job.train).numpy().tobytes() + job.targets(job.val).numpy().tobytes())
    tune = job.config.tune.model_dump(mode="json", exclude={"save_minutes"})
    head = [job.head_spec.name, job.head_spec.watch]
    versions = [torch.__version__, version("tl-core")]
    machine = [job.device.type, precision, processes, start]
    model = None if job.start is None else job.start.digest
    facts = [tune, model, job.config.seed, train, val, labels.hexdigest(), fingerprint, head, machine, versions]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def write_state(folder: Path, key: str, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bool:
    """Save a state whole or not at all; where the disk does not take it the former one stays, and a line says so."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    part = folder / f".{FILE}"
    # copies: safetensors refuses tensors that share memory, as weights do that segments have in common
    held = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    text = json.dumps(dict(facts), sort_keys=True)
    metadata = {"format": str(FORMAT_VERSION), "key": key, "facts": text, "check": _check(text, held)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(held, part, metadata)
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(folder / FILE)
        sync_folder(folder)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        _log.warning("can't save the state of training in %s: %s; training goes on without", folder, error)
        return False
    return True


def read_state(folder: Path, key: str) -> Saved | None:
    """The state that was saved under this key, None where there is none.

    A damaged one is ignored, and a line says so.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata["format"] != str(FORMAT_VERSION) or metadata["key"] != key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata["check"] != _check(metadata["facts"], tensors):
            raise ValueError("its contents are not what was written")
        return Saved(json.loads(metadata["facts"]), tensors)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        _log.warning("ignored the saved state of training in %s, which is damaged: %s", path, error)
        return None


def _check(text: str, tensors: Mapping[str, Tensor]) -> str:
    """A checksum of facts and tensors: safetensors notices a short file, but not a wrong byte."""
    crc = zlib.crc32(text.encode())
    for name in sorted(tensors):
        crc = zlib.crc32(name.encode(), crc)
        crc = zlib.crc32(tensors[name].flatten().view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"
