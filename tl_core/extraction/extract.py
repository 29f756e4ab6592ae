"""Bringing the store's features of a manifest up to date, and reading them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch

from tl_core.engines import resolve_device, resolve_precision
from tl_core.errors import UserError
from tl_core.extraction.computing import Computing
from tl_core.extraction.rows import DTYPES
from tl_core.progress import progress
from tl_core.store import TRUNCATED, Claims, FeatureStore, MissingRows, Space
from tl_core.types import END, Backbone, Loader, Sample

if TYPE_CHECKING:
    from tl_core.manifest import Manifest

AUDIT_ROWS = 2  # stored rows that are computed again: what changes a library changes them all
CLAIM_ROWS = 64  # samples that one of several processes takes for itself at a time


@dataclass(frozen=True)
class Extraction:
    """What an extraction did.

    computed + reused: samples asked for; truncated: of all of them; audited: stored rows that were computed again
    and found equal; seconds: wall time; engine, header: what computed, by name and in words (None where nothing was
    to compute); note: why it was not the engine that the device would have got.
    """

    computed: int
    reused: int
    truncated: int
    audited: int
    seconds: float
    precision: str
    engine: str | None = None
    header: str | None = None
    note: str | None = None


def space_of(backbone: Backbone, precision: str, cut: str = END) -> Space:
    """Where a backbone's features lie in the feature store."""
    return Space(backbone.fingerprint, cut, precision)


def precision_of(
    name: str, store: FeatureStore, fingerprint: str, digests: Sequence[str], device: torch.device, cut: str = END
) -> str:
    """The precision class of a name: for `auto` the one that the store holds most of the rows in, else the device's."""
    if name != "auto":
        return name
    held = {kind: int(store.present(Space(fingerprint, cut, kind), digests).sum()) for kind in DTYPES}
    return resolve_precision(name, device, held)


def extract(
    manifest: Manifest,
    rows: np.ndarray,
    loader: Loader,
    backbone: Backbone,
    store: FeatureStore,
    *,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    cut: str = END,
    label: str = "extract",
) -> Extraction:
    """fill() with a backbone that is built already. Moves it to the device and into eval mode."""
    return fill(
        manifest, rows, loader, backbone.fingerprint, lambda: backbone, store,
        device=device, precision=precision, engine=engine, cut=cut, label=label,
    )  # fmt: skip


def fill(
    manifest: Manifest,
    rows: np.ndarray,
    loader: Loader,
    fingerprint: str,
    build: Callable[[], Backbone],
    store: FeatureStore,
    *,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    cut: str = END,
    label: str = "extract",
    expected: int | None = None,
) -> Extraction:
    """Bring the store's features of the manifest's rows up to date, computing only those that it lacks.

    build: the backbone of that fingerprint; called only where something is lacking. cut: the segment before which
    the rows are taken, `end` for the embedding. expected: rows that will be asked for in all where these are only the
    first of them: the engine is chosen by that number, so that all come from one.

    Processes that fill one space at once share the work. Before new rows join stored ones, a few of those are computed
    again and must agree. Raises UserError where a sample no longer decodes or is not what it was when it was checked,
    where a feature is not finite, where stored rows are no longer what the backbone computes, and where the store's
    disk is full; stored rows stay.
    """
    started = time.monotonic()
    where = resolve_device(device)
    digests = manifest.digests(rows)
    space = Space(fingerprint, cut, precision_of(precision, store, fingerprint, digests, where, cut))
    store.mark_used(space, manifest.data_version, digests)  # first: what is in use is not collected
    present = store.present(space, digests)
    computing = None
    if not present.all():
        backbone = build()
        if backbone.fingerprint != fingerprint:
            raise UserError(
                f"the backbone at hand ({backbone.fingerprint[:16]}) is not the one that features are asked of "
                f"({fingerprint[:16]}): its weights, settings or libraries have changed; run again"
            )
        asked = max(len(digests), expected or 0)
        computing = Computing(
            loader, backbone, store, space, where, engine, asked, lambda: next(manifest.samples(rows[:1])), label
        )
        with store.claims(space) as claims:  # from here on gc leaves the space as it is
            computing.audit(manifest.samples(rows[_some_of(np.flatnonzero(present))]))
            # asked again: gc may have come first, and the audit may have met a damaged row
            lacking = _first_of_each(digests, ~store.present(space, digests))
            with progress(len(lacking), label, unit="sample") as bar:
                others: list[int] = []
                mine = _claimed(claims, digests, lacking, others)
                computing.compute(_samples(manifest, rows, mine), len(lacking), bar)
                while left := set(claims.wait([digests[i] for i in others])):  # what other processes have given up
                    rest = np.array([i for i in others if digests[i] in left])
                    computing.compute(_samples(manifest, rows, [rest]), len(rest), bar)
    computed = computing.computed if computing else 0
    with _still_there(store):
        flags = store.flags(space, digests)
    return Extraction(
        computed=computed,
        reused=len(digests) - computed,
        truncated=int(np.count_nonzero(flags & TRUNCATED)),
        audited=computing.audited if computing else 0,
        seconds=time.monotonic() - started,
        precision=space.precision,
        engine=computing.engine if computing else None,
        header=computing.header if computing else None,
        note=computing.note if computing else None,
    )


def features(
    manifest: Manifest,
    rows: np.ndarray,
    loader: Loader,
    build: Callable[[], Backbone],
    space: Space,
    store: FeatureStore,
    *,
    device: str = "auto",
    engine: str = "auto",
) -> np.ndarray:
    """The embeddings of the manifest's rows from the store, float32 [N, D].

    build: the backbone; called only where the store has lost rows, which are computed again. Raises UserError as
    fill() does.
    """
    digests = manifest.digests(rows)
    try:
        found, _ = store.read(space, digests)
    except MissingRows:
        fill(
            manifest, rows, loader, space.fingerprint, build, store,
            device=device, precision=space.precision, engine=engine, cut=space.cut, label="recompute",
        )  # fmt: skip
        with _still_there(store):
            found, _ = store.read(space, digests)
    return found.astype(np.float32)


@contextmanager
def _still_there(store: FeatureStore) -> Iterator[None]:
    """Say that rows which were stored a moment ago have gone."""
    try:
        yield
    except MissingRows as missing:
        raise UserError(
            f"{len(missing.digests):,} features have gone from the feature store {store.root} while they were in use "
            "(`tl cache gc`, a folder deleted by hand, a damaged disk?); run again: those that lack are computed"
        ) from missing


def _first_of_each(digests: Sequence[str], lacking: np.ndarray) -> np.ndarray:
    """Positions of the lacking rows, each distinct digest once, in order."""
    first = dict(zip(reversed(digests), range(len(digests) - 1, -1, -1)))
    return np.array([i for i in np.flatnonzero(lacking).tolist() if first[digests[i]] == i], dtype=np.int64)


def _some_of(positions: np.ndarray) -> np.ndarray:
    """A few positions, others each time: they decide nothing but whether the run stops."""
    return np.random.default_rng().permutation(positions)[:AUDIT_ROWS]


def _claimed(claims: Claims, digests: Sequence[str], lacking: np.ndarray, others: list[int]) -> Iterator[np.ndarray]:
    """Positions that this process is to compute, a few at a time; those that another one has go to `others`."""
    for start in range(0, len(lacking), CLAIM_ROWS):
        part = lacking[start : start + CLAIM_ROWS]
        mine = claims.take([digests[i] for i in part])
        others.extend(part[~mine].tolist())
        yield part[mine]


def _samples(manifest: Manifest, rows: np.ndarray, parts: Iterable[np.ndarray]) -> Iterator[Sample]:
    return chain.from_iterable(manifest.samples(rows[part]) for part in parts)
