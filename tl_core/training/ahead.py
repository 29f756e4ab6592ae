"""Work on batches that runs ahead of the training loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

import numpy as np

T = TypeVar("T")

AHEAD = 2  # batches made and waiting: bounds the memory


def ahead(
    batches: Iterable[np.ndarray], begin: Callable[[np.ndarray], Callable[[], T]]
) -> Generator[tuple[np.ndarray, T], None, None]:
    """(rows, what came of them) of each batch, in order.

    begin: sets the work on a batch going, in threads of the caller's, and gives what waits for its end.
    """
    waiting: deque[tuple[np.ndarray, Callable[[], T]]] = deque()
    for rows in batches:
        waiting.append((rows, begin(rows)))
        if len(waiting) > AHEAD:
            rows, result = waiting.popleft()
            yield rows, result()
    while waiting:
        rows, result = waiting.popleft()
        yield rows, result()
