"""Where training's batches come from: raw samples, or stored states of the frozen prefix."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tl_core.config import TuneConfig
from tl_core.engines import resolve_precision
from tl_core.errors import UserError
from tl_core.extraction import DTYPES, NotFinite, collate_samples, decoded, decoder_pool
from tl_core.store import StoreFull
from tl_core.training.ahead import ahead
from tl_core.training.cut_cost import MARGIN, SLACK, WORTH, Work, free_bytes, remaining_work, row_cost, size_text
from tl_core.training.schedule import epochs_of
from tl_core.training.stored import StoredSource
from tl_core.training.variants import Variant
from tl_core.types import Backbone, Loader, Prepared, State

if TYPE_CHECKING:
    from tl_core.manifest import Manifest
    from tl_core.training.job import Job
    from tl_core.training.plan import Plan


FRESH = "samples are augmented anew in every epoch (tune.augment is true and tune.views 0)"
MEASURED = 8  # samples of a ragged backbone by which its states are measured


class Source(Protocol):
    """Batches of training and validation samples. start: the segment at which their states enter the chain."""

    @property
    def start(self) -> int: ...

    def batches(
        self, batches: Sequence[np.ndarray], epoch: int | None = None
    ) -> Generator[tuple[np.ndarray, list[Prepared]], None, None]:
        """(rows, states) of each batch of manifest rows, in order, made by threads that run ahead; to be closed.

        epoch: counted from 1, by which augmented variants are drawn; None: the samples as they are.
        """

    def collate(self, prepared: Sequence[Prepared]) -> list[tuple[int, State, Tensor]]:
        """Samples as batches for forward(state, start): (bucket, batch, owner of each of its windows, int64)."""


@dataclass(frozen=True)
class SourceFacts:
    """What was decided about storing states, for tune.json.

    cut: None where training reads raw samples, else `name` (the first segment that is not stored), `bytes` of all
    states, `rows` (samples) and `views` (variants of each training sample, 0 for the sample itself); why: a sentence.
    """

    cut: dict[str, Any] | None
    why: str


class RawSource:
    """Batches decoded from the samples themselves.

    seed: to augment training samples by, None for no augmentation; views: how many variants of a sample there are, the
    same that would be stored; 0 for another one in each epoch.
    """

    start = 0

    def __init__(
        self, manifest: Manifest, loader: Loader, backbone: Backbone, seed: int | None = None, views: int = 0
    ) -> None:
        self._manifest, self._loader, self._backbone = manifest, loader, backbone
        self._seed = seed
        self._variants = variants_of(loader, seed, views)

    def batches(
        self, batches: Sequence[np.ndarray], epoch: int | None = None
    ) -> Generator[tuple[np.ndarray, list[Prepared]], None, None]:
        """(rows, prepared samples) of each batch of manifest rows, in order.

        epoch: counted from 1; None: the samples as they are. A variant depends on seed, epoch and row alone (of a
        fixed number of variants: on seed, epoch and the sample's bytes), so neither order nor threads change it. Raises
        UserError where a sample has changed since it was checked.
        """
        pool = decoder_pool()

        def begin(rows: np.ndarray) -> Callable[[], list[Prepared]]:
            futures = [pool.submit(self._prepare, int(row), epoch) for row in rows]
            return lambda: [future.result() for future in futures]

        try:
            yield from ahead(batches, begin)
        finally:
            pool.shutdown(cancel_futures=True)

    def collate(self, prepared: Sequence[Prepared]) -> list[tuple[int, State, Tensor]]:
        """Samples as batches: (bucket, batch, owner of each of its windows, int64), by bucket."""
        return collate_samples(self._backbone, prepared)

    def _prepare(self, row: int, epoch: int | None) -> Prepared:
        sample, backbone = self._manifest.sample(row), self._backbone
        if epoch is None or self._seed is None:
            return backbone.prepare(decoded(sample, self._loader, backbone.need))
        if self._variants:
            return backbone.prepare(decoded(sample, self._variants[(epoch - 1) % len(self._variants)]))
        whole = decoded(sample, self._loader)
        return backbone.prepare(self._loader.augment(whole, np.random.default_rng([self._seed, epoch, row])))


def variants_of(loader: Loader, seed: int | None, views: int) -> list[Variant]:
    """The variants that training goes through; none where samples are not augmented, or anew in every epoch."""
    return [] if seed is None else [Variant(loader, seed, number) for number in range(views)]


def source_of(job: Job, backbone: Backbone, plan: Plan, seen: np.ndarray | None = None) -> tuple[Source, SourceFacts]:
    """Stored states where `tune.cache` allows and they pay back, else raw samples; stored ones are all there then.

    backbone: as pretrained (or as drawn, of a plan that starts from random weights), before anything of it is changed;
    comes back on the job's device, in eval mode. seen: training rows that are looked at without augmentation as well.
    `auto` decides what training costs, not what it learns. Raises UserError where `tune.cache` is always and states
    can't be stored, where `tune.views` would do nothing, and as extraction's fill() does.
    """
    config, tune = job.config, job.config.tune
    seed = config.seed if tune.augment and job.loader.augments else None
    if tune.views and seed is None:
        raise UserError(_idle_views(tune, job.loader))
    raw = RawSource(job.manifest, job.loader, backbone, seed, tune.views)
    backbone.to(job.device).eval()
    if tune.cache == "never":
        return raw, SourceFacts(None, "tune.cache is never")
    why = _hindrance(tune, backbone, plan.start, seed is not None)
    if why is None:
        samples = _some(job, backbone, raw)
        if tune.augment and not tune.views and _perturbs(backbone, samples[0]):
            why = FRESH
    if why is None:
        variants = variants_of(job.loader, seed, tune.views)
        build = partial(job.spec.build, config.seed if plan.random else None)
        stored = StoredSource(job, backbone, plan.start, stored_precision(tune, job.device), variants, build, seen)
        facts, why = _weighed(job, backbone, samples, stored)
        if facts is not None:
            why = _filled(stored, tune)
            if why is None:
                return stored, facts
    if tune.cache == "always":
        raise UserError(f"config key 'tune.cache' can't be 'always': {why}; set it to auto or never")
    return raw, SourceFacts(None, why)


def stored_precision(tune: TuneConfig, device: torch.device) -> str:
    """The precision class that states are computed and stored in: of training's own forward."""
    if tune.precision == "float16":
        return "bfloat16"  # the class whose rows are stored as float16
    return resolve_precision(tune.precision, device, {})


def _filled(stored: StoredSource, tune: TuneConfig) -> str | None:
    """Fill the store; why that could not be done, None where it was."""
    try:
        stored.fill()
    except NotFinite:
        kind = DTYPES[stored.precision]
        return f"states before {stored.cut} are not finite in {kind} (tune.precision is {tune.precision})"
    except StoreFull:
        if tune.cache == "always":
            raise
        return f"the disk became full while states before {stored.cut} were stored"
    return None


def _idle_views(tune: TuneConfig, loader: Loader) -> str:
    why = f"the {loader.modality} loader augments nothing" if tune.augment else "tune.augment is false"
    remedy = "set it to 0" if tune.augment else "set it to 0, or tune.augment to true"
    return f"config key 'tune.views' can't be {tune.views}: {why}, so there are no variants to store; {remedy}"


def _hindrance(tune: TuneConfig, backbone: Backbone, start: int, augmented: bool) -> str | None:
    """Why states can't be stored, or would change what is learnt, whatever they cost; None where they can."""
    if start == 0:
        return f"the first segment, {backbone.segment_names[0]}, is trained (tune.train_from is {tune.train_from})"
    if start == len(backbone.segments):
        return "no segment is trained"
    if augmented and not tune.views:
        return FRESH
    if tune.mix != "none" and tune.cache == "auto":
        return f"{tune.mix} mixes the samples, not the states before {backbone.segment_names[start]}"
    return None


def _some(job: Job, backbone: Backbone, raw: RawSource) -> list[Prepared]:
    """Training samples by which the cost is measured: one where all are alike."""
    few = job.train[:: max(1, len(job.train) // MEASURED)][:MEASURED] if backbone.ragged else job.train[:1]
    with closing(raw.batches([few])) as stream:
        return next(stream)[1]


def _perturbs(backbone: Backbone, sample: Prepared) -> bool:
    """Whether the backbone's perturb() gives anything but the batch itself."""
    batch = backbone.collate([sample.windows[0]])
    return backbone.perturb(batch, np.random.default_rng(0)) is not batch


def _weighed(
    job: Job, backbone: Backbone, samples: Sequence[Prepared], stored: StoredSource
) -> tuple[SourceFacts | None, str]:
    """The facts where the states are to be stored, and why or why not."""
    tune, name = job.config.tune, backbone.segment_names[stored.start]
    cost = row_cost(backbone, samples, stored.start, stored.precision, job.device)
    if cost is None:
        return None, f"what the segments before {name} compute can't be counted"
    states = sum(len(rows) for _, rows in stored.wanted())
    work = Work(len(job.train), len(job.val), states, epochs_of(tune, len(job.train)))
    size, lacking = cost.stored * states, cost.stored * stored.lacking()
    free = free_bytes(job.store.root)
    if lacking * SLACK + MARGIN > free:
        return None, (
            f"{size_text(lacking)} of states before {name} are to be stored, and the feature store's disk has not as "
            f"much to spare ({size_text(MARGIN)} stay free)"
        )
    share = remaining_work(cost, work, job.device.type, stored.precision)
    if share > WORTH and tune.cache == "auto":
        return None, (
            f"states before {name} don't pay back: with them {share:.0%} of the estimated work remain, for "
            f"{size_text(size)} on the disk"
        )
    why = f"training starts from stored states before {name}: {share:.0%} of the estimated work remain"
    return SourceFacts(
        {"name": name, "bytes": round(size), "rows": work.train + work.val, "views": tune.views}, why
    ), why
