"""What every part is given, and the machine that it runs on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.end_to_end import machine as machine_facts

ROOT = Path(__file__).resolve().parents[2]

LIBRARIES = (
    "torch", "torchvision", "openvino", "timm", "transformers", "tokenizers", "sentence-transformers", "scikit-learn",
    "numpy", "pillow", "soundfile",
)  # fmt: skip
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Setup:
    """data: folder of real sets and weights (what is missing is replaced by made-up samples, or left out); cache:
    where samples, models and stores are made; device: cpu or cuda; text_encoder: the backbone of the text parts;
    quick: a small part of everything, to see that it runs."""

    data: Path
    cache: Path
    device: str = "cpu"
    text_encoder: str = "all-minilm-l6-v2"
    quick: bool = False

    @property
    def rounds(self) -> int:
        return 1 if self.quick else 3

    def sized(self, full: int, quick: int) -> int:
        """How many of something, by whether this is a quick run."""
        return quick if self.quick else full


def machine(device: str = "cpu") -> dict[str, str]:
    """What numbers were measured on: processor, its instructions for half precision, and versions."""
    import torch

    facts = machine_facts()
    facts["python"] = facts.pop("python")
    facts["instructions"] = " ".join(cpu_flags()) or "unknown"
    facts["threads"] = str(torch.get_num_threads())
    if device == "cuda" and torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts | installed(LIBRARIES)


def cpu_flags() -> list[str]:
    """Which of FLAGS the processor has."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    return [flag for flag in FLAGS if flag in flags]


def installed(libraries: Iterable[str]) -> dict[str, str]:
    """Versions of those that are there."""
    found = {}
    for library in libraries:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def fast_engine() -> str:
    """The engine that tl chooses on a CPU for work enough: openvino where it is installed, else torch."""
    return "openvino" if installed(["openvino"]) else "torch"


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    return sum(os.times()[:4])
