"""Rows and writers that the tests of the store share: row n is n, 64 times, under the md5 of `n`."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np

from tl_core.store import FeatureStore, Space

SPACE = Space("ab" * 32, "end", "float32")
RAGGED = Space("ab" * 32, "block.1", "bfloat16")
ENGINE = "torch-2.0-cpu"
F32, F16 = np.dtype(np.float32), np.dtype(np.float16)

# A writer process: it stores rows first..last, ten at a time.
WRITER = """
import hashlib, sys
from pathlib import Path
import numpy as np
from tl_core.store import FeatureStore, Space
root, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with FeatureStore(root).writer(Space("ab" * 32, "end", "float32"), (64,), np.dtype("f4"), "torch-2.0-cpu") as writer:
    print("open", flush=True)
    for start in range(first, last, 10):
        numbers = np.arange(start, min(start + 10, last))
        names = [hashlib.md5(str(n).encode()).hexdigest() for n in numbers]
        writer.append(names, np.repeat(numbers[:, None], 64, axis=1).astype("f4"))
print("done", flush=True)
"""


def digest(number: int) -> str:
    return hashlib.md5(str(number).encode()).hexdigest()


def digests(*numbers: int) -> list[str]:
    return [digest(n) for n in numbers]


def rows_of(numbers: list[int] | range, width: int = 64) -> np.ndarray:
    return np.repeat(np.asarray(numbers, np.float32)[:, None], width, axis=1)


def put(
    root: Path,
    numbers: list[int] | range,
    space: Space = SPACE,
    flags: np.ndarray | None = None,
    engine: str = ENGINE,
) -> None:
    with FeatureStore(root).writer(space, (64,), F32, engine) as writer:
        writer.append(digests(*numbers), rows_of(numbers), flags)


def tokens(number: int) -> dict[str, np.ndarray]:
    """A ragged row: as many tokens as the number has, and at least one."""
    count = number % 7 + 1
    return {"0.x": np.full((count, 8), number, F16), "0.mask": np.ones(count, np.int64)}


def put_tokens(root: Path, numbers: list[int] | range, space: Space = RAGGED) -> None:
    with FeatureStore(root).ragged_writer(space, F16, ENGINE) as writer:
        writer.append(digests(*numbers), [tokens(n) for n in numbers])


def start_writer(root: Path, first: int, last: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), str(first), str(last)], stdout=subprocess.PIPE, text=True
    )


def only(root: Path, suffix: str, space: Space = SPACE) -> Path:
    (path,) = space.folder(root).glob(f"*{suffix}")
    return path
