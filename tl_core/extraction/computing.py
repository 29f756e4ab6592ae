"""Computing rows into one space: decode, forward, audit, store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tl_core.engines import choose_engine, describe, disagreement, libraries
from tl_core.errors import UserError
from tl_core.extraction.decoding import decoded, prepared
from tl_core.extraction.rows import Row, Rows, packed
from tl_core.extraction.windows import Windows
from tl_core.store import FeatureStore, MissingRows, Space
from tl_core.types import Backbone, Loader, Prepared, Sample

if TYPE_CHECKING:
    from tqdm import tqdm

_log = logging.getLogger(__name__)


class Computing:
    """Rows of one backbone at one cut, on an engine that is chosen when the first sample is there.

    asked: rows that the caller wants in all, stored ones too; first: the first of them. The engine goes by these and
    not by what is lacking, or a run that was killed would go on with another one. computed: rows so far.
    """

    def __init__(
        self,
        loader: Loader,
        backbone: Backbone,
        store: FeatureStore,
        space: Space,
        device: torch.device,
        engine: str,
        asked: int,
        first: Callable[[], Sample],
        label: str,
    ) -> None:
        self._loader, self._backbone, self._store, self._space = loader, backbone, store, space
        self._device, self._wanted, self._asked, self._first, self._label = device, engine, asked, first, label
        self._stop = backbone.segment(space.cut)
        self._windows: Windows | None = None
        self.computed = 0
        self.audited = 0
        self.note: str | None = None

    @property
    def engine(self) -> str | None:
        """Name of the engine, None before the first sample."""
        return self._windows.engine.name if self._windows else None

    @property
    def header(self) -> str | None:
        """The engine in words, None before the first sample."""
        return describe(self._windows.engine) if self._windows else None

    def compute(self, samples: Iterable[Sample], total: int, bar: tqdm[Any]) -> None:
        """Compute and store the samples' rows. total: of them, for the message on a full disk."""
        with closing(prepared(samples, self._loader, self._backbone)) as stream:
            first = next(stream, None)
            if first is None:
                return
            windows = self._windows or self._begin(*first)
            made = libraries(self._backbone)
            with Rows(self._store, self._space, engine=windows.engine.name, made=made, total=total) as rows:
                for (sample, truncated), outputs in windows.through(_keyed(chain([first], stream))):
                    rows.add(sample, packed(self._backbone, self._space.cut, outputs), truncated)
                    self.computed += 1
                    bar.update()

    @property
    def _ragged(self) -> bool:
        return self._backbone.ragged and self._stop < len(self._backbone.segments)

    def _begin(self, sample: Sample, usual: Prepared) -> Windows:
        """Choose the engine. sample, usual: in place of the first one asked for, where that is not what it was."""
        first = self._first()
        if first.digest != sample.digest:
            with suppress(UserError):
                usual = self._backbone.prepare(decoded(first, self._loader, self._backbone.need))
        engine, self.note = choose_engine(
            self._backbone,
            engine=self._wanted,
            device=self._device,
            precision=self._space.precision,
            stop=self._stop,
            rows=self._asked * len(usual.windows),
            folder=self._store.root,
            example=self._backbone.collate(list(usual.windows[:1]) * 2),
        )
        if self.note:
            _log.warning("%s: %s", self._label, self.note)
        _log.info("%s: %s", self._label, describe(engine))
        self._windows = Windows(self._backbone, engine, self._stop, self._store.root)
        return self._windows

    def audit(self, samples: Iterable[Sample]) -> None:
        """Compute stored rows again. Raises UserError where they are not what the engine gives now.

        A library that computes the network otherwise than it used to is in no key; this is what finds it.
        """
        with closing(prepared(samples, self._loader, self._backbone)) as stream:
            first = next(stream, None)
            if first is None:
                return
            windows = self._windows or self._begin(*first)
            for (sample, _), outputs in windows.through(_keyed(chain([first], stream))):
                self.audited += self._compare(sample, packed(self._backbone, self._space.cut, outputs))

    def _compare(self, sample: Sample, row: Row) -> bool:
        """Whether there was a row to compare with."""
        read = self._store.read_ragged if self._ragged else self._store.read
        try:
            stored: Row = read(self._space, [sample.digest])[0][0]
        except MissingRows:  # damaged on the disk: it is computed again
            return False
        why = disagreement(_flat(stored), _flat(row), self._space.precision)
        if why:
            raise UserError(
                f"stored features are not what {self.engine} computes now: those of {sample.id} differ ({why}). "
                "A library that computes the network has changed since, or a disk has; delete "
                f"{self._space.folder(self._store.root)} and run again: they are computed anew"
            )
        return True


def _keyed(stream: Iterable[tuple[Sample, Prepared]]) -> Iterator[tuple[tuple[Sample, bool], Prepared]]:
    for sample, windows in stream:
        yield (sample, windows.truncated), windows


def _flat(row: Row) -> np.ndarray:
    """All values of a row one after the other, float32."""
    parts = [row[key] for key in sorted(row)] if isinstance(row, dict) else [row]
    return np.concatenate([part.astype(np.float32).ravel() for part in parts])
