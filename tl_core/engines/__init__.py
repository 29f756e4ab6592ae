"""What computes a span of a backbone: torch eager (the reference), torch.compile, or OpenVINO."""

from tl_core.engines.choice import choose_engine, flops_of
from tl_core.engines.cpu import cpu_name, threads
from tl_core.engines.device import resolve_device, resolve_precision
from tl_core.engines.eager import TorchEngine
from tl_core.engines.engine import Engine, EngineOutOfMemory, describe, libraries
from tl_core.engines.shapes import halve
from tl_core.engines.tolerance import TOLERANCE, disagreement

__all__ = [
    "TOLERANCE",
    "Engine",
    "EngineOutOfMemory",
    "TorchEngine",
    "choose_engine",
    "cpu_name",
    "describe",
    "disagreement",
    "flops_of",
    "halve",
    "libraries",
    "resolve_device",
    "resolve_precision",
    "threads",
]
