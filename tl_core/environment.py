"""What a run computes with: versions of the software, processor, threads and device."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

import torch

from tl_core.engines import cpu_name, threads

_COMPUTING = ("torch", "numpy", "openvino")  # of what tl-core needs; the rest computes no feature and no metric


def environment(plugin: str | None, device: torch.device) -> dict[str, str]:
    """What may change the last bits of a result, by name, as people read it.

    plugin: the distribution that serves the modality, told with what it needs; device: that networks run on.
    """
    installed = {name: found for name in _names(plugin) if (found := _version(name)) is not None}
    return {
        **installed,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": cpu_name(),
        "threads": str(threads()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def _names(plugin: str | None) -> Iterator[str]:
    yield "tl-core"
    if plugin:
        yield plugin
    yield from _COMPUTING
    try:
        needed = requires(plugin) or () if plugin else ()
    except PackageNotFoundError:  # a plugin that is a module of no distribution
        return
    for requirement in sorted(needed):
        name = re.match(r"[\w.-]+", requirement)
        if name is not None and "extra ==" not in requirement:
            yield name[0]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
