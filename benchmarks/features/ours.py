"""tl as a contender: extraction end to end, the forward alone, and decoding alone, on one engine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.features.contest import Contender, Entry, Work, ratio
from benchmarks.features.material import load
from benchmarks.features.plugins import registry_here
from tl_core.engines import Engine, choose_engine, resolve_device
from tl_core.extraction import Extraction, extract, features, space_of
from tl_core.extraction.decoding import prepared
from tl_core.manifest import Manifest
from tl_core.store import FeatureStore
from tl_core.types import Backbone, Loader, State

ENGINES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "cpu": (("openvino", "bfloat16"), ("openvino", "float32"), ("torch", "bfloat16"), ("torch", "float32")),
    "cuda": (("compile", "bfloat16"), ("torch", "bfloat16"), ("torch", "float32")),
}
"""(engine, precision) by device, first the one that tl would choose for work enough."""

REFERENCE = "torch float32"
COMPANY = 6  # samples that are computed again, each alone in a store of its own


@dataclass(frozen=True)
class Job:
    """What tl is to compute. manifest: of `material`; scratch: this contender's own; rows: timed end to end; forward:
    windows timed in the forward alone (0: not timed), which goes over the first `distinct` samples again and again;
    decode: samples timed in decoding alone (0: not timed); warm: samples that engines are warmed up on, twice."""

    manifest: Path
    modality: str
    backbone: str
    device: str
    scratch: Path
    distinct: int
    decode: int = 0
    warm: int = 16
    engine: str = "torch"
    precision: str = "float32"
    rows: int = 0
    forward: int = 0


def contenders(job: Job, by_engine: Callable[[str, str], tuple[int, int]]) -> list[Contender]:
    """tl on each engine of the job's device; by_engine: (rows, forward) for an engine and a precision class.

    The job's own engine and precision count for nothing. Only the first, which tl would choose, decodes alone too.
    """
    found: list[Contender] = []
    for engine, precision in ENGINES[job.device]:
        rows, forward = by_engine(engine, precision)
        one = replace(
            job, engine=engine, precision=precision, scratch=job.scratch.with_name(f"{job.scratch.name}-{len(found)}"),
            rows=rows, forward=forward, decode=0 if found else job.decode,
        )  # fmt: skip
        works = ("whole", *(["forward"] if one.forward else []), *(["decode"] if one.decode else []))
        found.append(Contender(f"{engine} {precision}", enter, {"job": one}, works))
    return found


def ratios(works: Mapping[str, Any], ours: Iterable[Contender], rivals: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What each of tl's engines reached over the rivals (`over`, by name) and of its own forward alone."""
    found: dict[str, dict[str, Any]] = {}
    for name in (contender.name for contender in ours if contender.name in works):
        over = {rival: round(ratio(works[name], works[rival]), 3) for rival in rivals if rival in works}
        found[name] = {"over": over}
        if f"{name}/forward" in works:
            found[name]["of_forward"] = round(ratio(works[name], works[f"{name}/forward"]), 3)
    return found


def enter(job: Job) -> Entry:
    """Build the backbone, let the engine convert it (into a store that later ones are copies of), and load it again."""
    shutil.rmtree(job.scratch, ignore_errors=True)
    side = Side(job)
    first, second = side.warm_up()
    return Entry(
        works={
            "whole": side.whole,
            "forward": side.forward,
            "decode": side.decode,
            "features": side.features,
            "company": side.company,
        },
        facts={
            "engine": first.engine,
            "note": first.note,
            "conversion_seconds": round(max(0.0, first.seconds - second.seconds), 3),
            "load_seconds": round(second.seconds, 3),
            "feature_dim": side.backbone.feature_dim,
        },
    )


class Side:
    """The works of one job. Every round extracts into a store of its own: a copy of the warm one, without the rows."""

    def __init__(self, job: Job) -> None:
        registry = registry_here()
        self.job = job
        self.loader: Loader = registry.loader(job.modality)
        self.backbone: Backbone = registry.backbone(job.backbone, job.modality).build()
        self.manifest: Manifest
        self.manifest, rows = load(job.manifest)
        if len(rows) < job.warm * 2 + job.rows:
            raise ValueError(f"{len(rows)} samples in {job.manifest}, {job.warm * 2 + job.rows} are needed")
        self._warm, self._others = rows[: 2 * job.warm], rows[2 * job.warm :]
        self.rows = self._others[: job.rows]
        self._batches: list[tuple[State, int]] = []
        self._engine: Engine | None = None
        self._round = 0

    def warm_up(self) -> tuple[Extraction, Extraction]:
        """The first extraction, which converts, and one after it."""
        half = len(self._warm) // 2
        root = self.job.scratch / "warm"
        return self.into(root, self._warm[:half]), self.into(root, self._warm[half:])

    def into(self, root: Path, rows: np.ndarray) -> Extraction:
        return extract(
            self.manifest, rows, self.loader, self.backbone, FeatureStore(root),
            device=self.job.device, precision=self.job.precision, engine=self.job.engine,
        )  # fmt: skip

    def whole(self) -> Work:
        root = self._fresh()

        def work() -> dict[str, Any]:
            done = self.into(root, self.rows)
            if done.computed != len(self.rows):
                raise RuntimeError(f"{done.computed} of {len(self.rows)} rows computed: the store was not fresh")
            return {"items": done.computed}

        return work

    def forward(self) -> Work:
        engine = self._ready()
        count = self.job.forward

        def work() -> dict[str, Any]:
            sizes: list[int] = []
            through = sum(1 for _ in engine.run(self._enough(count, sizes)))
            return {"items": sum(sizes[:through])}

        return work

    def decode(self) -> Work:
        rows = self._others[: self.job.decode]

        def work() -> dict[str, Any]:
            return {"items": sum(1 for _ in prepared(self.manifest.samples(rows), self.loader, self.backbone))}

        return work

    def features(self) -> Work:
        """The rows of the last whole round, kept beside it as float32 in the manifest's order of rows."""
        root = self._root()
        path = self.job.scratch / "features.npy"

        def work() -> dict[str, Any]:
            np.save(path, self._read(root, self.rows))
            return {"path": str(path)}

        return work

    def company(self) -> Work:
        """Whether samples have the same bits computed alone as in the company of all others."""
        picked = self.rows[np.linspace(0, len(self.rows) - 1, COMPANY).astype(int)]
        crowd = self._read(self._root(), picked)

        def work() -> dict[str, Any]:
            alone = np.zeros_like(crowd)
            for i in range(len(picked)):
                root = self._fresh()
                self.into(root, picked[i : i + 1])
                alone[i] = self._read(root, picked[i : i + 1])[0]
            equal = int((alone == crowd).all(axis=1).sum())
            return {"samples": len(picked), "equal": equal, "worst": float(np.abs(alone - crowd).max())}

        return work

    def _read(self, root: Path, rows: np.ndarray) -> np.ndarray:
        space = space_of(self.backbone, self.job.precision)
        return features(self.manifest, rows, self.loader, self._never, space, FeatureStore(root))

    def _never(self) -> Backbone:
        raise RuntimeError("rows that were just stored are not in the store")

    def _root(self) -> Path:
        return self.job.scratch / f"round-{self._round}"

    def _fresh(self) -> Path:
        shutil.rmtree(self._root(), ignore_errors=True)
        self._round += 1
        shutil.copytree(self.job.scratch / "warm", self._root())
        return self._root()

    def _ready(self) -> Engine:
        """The engine that extraction uses, and batches as extraction fills them; made once."""
        if self._engine is None:
            samples = self.manifest.samples(self.rows[: self.job.distinct])
            found = prepared(samples, self.loader, self.backbone)
            windows = [window for _, sample in found for window in sample.windows]
            self._engine, _ = choose_engine(
                self.backbone, engine=self.job.engine, device=resolve_device(self.job.device),
                precision=self.job.precision, stop=None, rows=self.job.forward, folder=self.job.scratch / "warm",
                example=self.backbone.collate(windows[:1] * 2),
            )  # fmt: skip
            self._batches = filled(self.backbone, windows, self._engine.scale)
            for _ in self._engine.run(enumerate(state for state, _ in self._batches[:4])):
                pass
        return self._engine

    def _enough(self, count: int, sizes: list[int]) -> Iterator[tuple[int, State]]:
        """Batches over and over until there are so many windows; sizes: how many windows each held."""
        for number, (state, size) in enumerate(cycle(self._batches)):
            if sum(sizes) >= count:
                return
            sizes.append(size)
            yield number, state


def filled(backbone: Backbone, windows: Sequence[State], scale: float) -> list[tuple[State, int]]:
    """Windows as batches of fixed shape by bucket, as extraction makes them, and how many of each batch count."""
    buckets: dict[int, list[State]] = {}
    for window in windows:
        buckets.setdefault(backbone.bucket(window), []).append(window)
    batches = []
    for bucket, members in sorted(buckets.items()):
        size = max(1, int(backbone.batch_size(bucket) * scale))
        source = iter(members)
        while part := list(islice(source, size)):
            batches.append((backbone.collate(part + part[-1:] * (size - len(part))), len(part)))
    return batches
