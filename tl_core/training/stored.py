"""Training from stored states: the frozen prefix is computed once, its output read back in every epoch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tl_core.extraction import boundaries, by_bucket, fill, space_of
from tl_core.store import FeatureStore, MissingRows, Space
from tl_core.training.ahead import ahead
from tl_core.training.variants import Variant
from tl_core.types import Backbone, Loader, Prepared, State

if TYPE_CHECKING:
    from tl_core.training.job import Job

READERS = 2  # threads: one waits for the disk while the other one's rows become tensors


@dataclass(frozen=True)
class Kept:
    """One space of states: who sees which samples there.

    variant: which variant of them, None for the samples themselves; asked: rows that are asked for in all: the engine
    goes by them.
    """

    space: Space
    variant: Variant | None
    asked: int


class StoredSource:
    """Batches of states before segment `start`, which is called `cut`, from the feature store.

    backbone: as pretrained, by which the states are computed and collated; its segments from `start` on may be trained
    meanwhile. build: the same anew, for rows that the store has lost since. variants: those that training goes
    through, epoch by epoch; none where it sees the samples themselves. seen: training rows that are looked at without
    augmentation as well.
    """

    def __init__(
        self,
        job: Job,
        backbone: Backbone,
        start: int,
        precision: str,
        variants: Sequence[Variant],
        build: Callable[[], Backbone],
        seen: np.ndarray | None = None,
    ) -> None:
        self.start, self.precision = start, precision
        self._job, self._backbone, self._build = job, backbone, build
        self._spare: Backbone | None = None
        self.cut = backbone.segment_names[start]
        some = np.zeros(0, np.int64) if seen is None else seen
        self._plain_rows = np.concatenate([some if variants else job.train, job.val])
        self._plain = Kept(space_of(backbone, precision, self.cut), None, len(self._plain_rows))
        self._variants = [
            Kept(space_of(variant.seen_by(backbone), precision, self.cut), variant, len(job.train))
            for variant in variants
        ]

    def wanted(self) -> list[tuple[Kept, np.ndarray]]:
        """Every space with the manifest rows that belong into it."""
        return [(self._plain, self._plain_rows), *((kept, self._job.train) for kept in self._variants)]

    def lacking(self) -> int:
        """States that the store does not hold yet."""
        store, digests = self._job.store, self._job.manifest.digests
        return sum(
            len({name for name, there in zip(names, store.present(kept.space, names)) if not there})
            for kept, names in ((kept, digests(rows)) for kept, rows in self.wanted())
        )

    def fill(self) -> None:
        """Compute and store what is lacking. Raises UserError as extraction's fill() does.

        The backbone comes back on the job's device, in eval mode.
        """
        label = f"states before {self.cut}"
        try:
            for number, (kept, rows) in enumerate(self.wanted()):
                self._fill(kept, rows, self._backbone, f"{label}, variant {number}" if kept.variant else label)
        finally:
            self._backbone.to(self._job.device)

    def batches(
        self, batches: Sequence[np.ndarray], epoch: int | None = None
    ) -> Generator[tuple[np.ndarray, list[Prepared]], None, None]:
        """(rows, states) of each batch of manifest rows, in order.

        epoch: counted from 1, which takes the variants in turn; None: the samples as they are. Rows that the store has
        lost, or never had, are computed. Raises UserError as extraction's fill() does.
        """
        kept = self._plain
        if epoch is not None and self._variants:
            kept = self._variants[(epoch - 1) % len(self._variants)]
        local = threading.local()  # a store object belongs to one thread

        def opened() -> None:
            local.store = FeatureStore(self._job.store.root)

        def read(rows: np.ndarray) -> list[Prepared]:
            return boundaries(self._job.manifest, rows, kept.space, local.store)

        def result(future: Future[list[Prepared]], rows: np.ndarray) -> list[Prepared]:
            try:
                return future.result()
            except MissingRows:  # those of later batches may be missing as well
                self._fill(kept, np.concatenate(batches), None, "recompute")
                return boundaries(self._job.manifest, rows, kept.space, self._job.store)

        pool = ThreadPoolExecutor(READERS, "states", initializer=opened)

        def begin(rows: np.ndarray) -> Callable[[], list[Prepared]]:
            future: Future[list[Prepared]] = pool.submit(read, rows)
            return lambda: result(future, rows)

        try:
            yield from ahead(batches, begin)
        finally:
            pool.shutdown(cancel_futures=True)

    def collate(self, prepared: Sequence[Prepared]) -> list[tuple[int, State, Tensor]]:
        """Samples as batches for forward(state, start): (bucket, batch, owner of each of its windows, int64)."""
        return [
            (
                bucket,
                self._backbone.collate_boundary([window for window, _ in items]),
                torch.tensor([owner for _, owner in items]),
            )
            for bucket, items in by_bucket(self._backbone, prepared, self._backbone.boundary_bucket)
        ]

    def _fill(self, kept: Kept, rows: np.ndarray, backbone: Backbone | None, label: str) -> None:
        job, variant = self._job, kept.variant
        loader: Loader = variant or job.loader

        def built() -> Backbone:
            base = backbone or self._anew()
            return variant.seen_by(base) if variant else base

        fill(
            job.manifest, rows, loader, kept.space.fingerprint, built, job.store,
            device=str(job.device), precision=kept.space.precision, engine=job.config.extract.engine, cut=self.cut,
            label=label, expected=kept.asked,
        )  # fmt: skip

    def _anew(self) -> Backbone:
        """The backbone as pretrained, in modules of its own: the other one's are being trained."""
        if self._spare is None:
            self._spare = self._build()
        return self._spare
