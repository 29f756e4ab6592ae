"""Batches of prepared samples, decoded by threads that run ahead of the training loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tl_core.extraction import decoded, decoder_pool
from tl_core.types import Backbone, Loader, Prepared

if TYPE_CHECKING:
    from tl_core.manifest import Manifest

_AHEAD = 2  # batches decoded and waiting: bounds the memory


@dataclass(frozen=True)
class Samples:
    """What it takes to turn manifest rows into prepared samples."""

    manifest: Manifest
    loader: Loader
    backbone: Backbone

    def targets(self, rows: np.ndarray) -> torch.Tensor:
        """Targets of manifest rows as the head's loss takes them."""
        return torch.from_numpy(self.manifest.target_array(rows))

    def batches(
        self, batches: Sequence[np.ndarray], seeds: tuple[int, int] | None = None
    ) -> Generator[tuple[np.ndarray, list[Prepared]], None, None]:
        """(rows, prepared samples) of each batch of manifest rows, in order.

        seeds: (seed, epoch) to augment by. A variant depends on these and the row alone, so neither order nor
        threads change it. Raises UserError where a sample has changed since it was checked.
        """
        waiting: deque[tuple[np.ndarray, list[Future[Prepared]]]] = deque()
        pool = decoder_pool()
        try:
            for rows in batches:
                waiting.append((rows, [pool.submit(self._prepare, int(row), seeds) for row in rows]))
                if len(waiting) > _AHEAD:
                    yield _finished(waiting.popleft())
            while waiting:
                yield _finished(waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _prepare(self, row: int, seeds: tuple[int, int] | None) -> Prepared:
        sample = self.manifest.sample(row)
        if seeds is None:
            return self.backbone.prepare(decoded(sample, self.loader, self.backbone.need))
        whole = decoded(sample, self.loader)
        return self.backbone.prepare(self.loader.augment(whole, np.random.default_rng([*seeds, row])))


def _finished(item: tuple[np.ndarray, list[Future[Prepared]]]) -> tuple[np.ndarray, list[Prepared]]:
    rows, futures = item
    return rows, [future.result() for future in futures]


def even_batches(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Rows in batches of at most `size`, as even as can be: no last batch of one, which batch-norm can't take."""
    return list(np.array_split(rows, max(1, -(-len(rows) // size))))
