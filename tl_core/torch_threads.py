"""How many threads torch computes with, where that is not left to torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """While this holds, torch's operations run in the calling thread, where the caller is the only one to use torch.

    torch's own threads spin while they wait for each other. Beside other work on the same cores that is worse than
    doing without them: for many small steps (an eigendecomposition), and beside OpenVINO's threads.
    """
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)
