"""Computing features: what the store lacks, each sample once, in batches of fixed shape."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from tl_core.errors import DecodeError, UserError
from tl_core.progress import progress
from tl_core.store import TRUNCATED, FeatureStore, MissingRows, Space, StoreFull, Writer
from tl_core.types import Backbone, Loader, Prepared, Sample, State

if TYPE_CHECKING:
    from tl_core.manifest import Manifest

K = TypeVar("K")

END = "end"
"""The cut after the last segment: the embedding."""

DTYPES: dict[str, np.dtype[np.floating]] = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(np.float16)}
"""How rows of a precision class are stored: pooled in float32, so float16 keeps more of them than bfloat16 would."""

_DECODERS = 2  # threads; more, or worker processes, were slower (the decoders release the GIL)
_AHEAD = 48  # samples decoded and waiting, at most: bounds the memory
_FLUSH_ROWS, _FLUSH_SECONDS = 256, 2.0  # what a kill loses, at most


@dataclass(frozen=True)
class Extraction:
    """What an extraction did. computed + reused: samples asked for; truncated: of all of them; seconds: wall time."""

    computed: int
    reused: int
    truncated: int
    seconds: float
    engine: str
    precision: str


def space_of(backbone: Backbone, precision: str) -> Space:
    """Where a backbone's embeddings lie in the feature store."""
    return Space(backbone.fingerprint, END, precision)


def resolve_device(name: str) -> torch.device:
    """The device of a name (`auto`, `cpu`, `cuda`, `cuda:1`). Raises UserError where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"no device {name!r}; extract.device takes auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise UserError(
            f"device {name} is not there: torch {torch.__version__} sees {count} CUDA devices; "
            "set extract.device to auto or cpu"
        )
    return device


def extract(
    manifest: Manifest,
    rows: np.ndarray,
    loader: Loader,
    backbone: Backbone,
    store: FeatureStore,
    *,
    device: str = "auto",
    precision: str = "float32",
    label: str = "extract",
) -> Extraction:
    """Bring the store's embeddings of the manifest's rows up to date, computing only those that it lacks.

    loader.decode and backbone.prepare run in two threads ahead of the forward. Moves the backbone to the device
    and into eval mode. Raises UserError where a sample no longer decodes or is not what it was when it was
    checked, where a feature is not finite, and where the store's disk is full; stored rows stay.
    """
    started = time.monotonic()
    where = resolve_device(device)
    engine = f"torch-{torch.__version__.split('+')[0]}-{where.type}"
    space = space_of(backbone, precision)
    digests = manifest.digests(rows)
    first = dict(zip(reversed(digests), range(len(digests) - 1, -1, -1)))  # each distinct digest once
    lacking: list[int] = np.flatnonzero(~store.present(space, digests)).tolist()
    wanted = [i for i in lacking if first[digests[i]] == i]
    if wanted:
        with (
            store.writer(space, (backbone.feature_dim,), DTYPES[precision], engine) as writer,
            progress(len(wanted), label, unit="sample") as bar,
            closing(_prepared(manifest.samples(rows[wanted]), loader, backbone)) as prepared,
        ):
            pending = _Rows(writer, precision, len(wanted))
            for (sample, truncated), row in _embedded(backbone, prepared, where, precision):
                pending.add(sample, row, truncated)
                bar.update()
            pending.flush()
    return Extraction(
        computed=len(wanted),
        reused=len(digests) - len(wanted),
        truncated=int(np.count_nonzero(store.flags(space, digests) & TRUNCATED)),
        seconds=time.monotonic() - started,
        engine=engine,
        precision=precision,
    )


def features(
    manifest: Manifest,
    rows: np.ndarray,
    loader: Loader,
    backbone: Callable[[], Backbone],
    space: Space,
    store: FeatureStore,
    *,
    device: str = "auto",
) -> np.ndarray:
    """The embeddings of the manifest's rows from the store, float32 [N, D].

    backbone: builds it; called only where the store has lost rows, which are computed again. Raises UserError as
    extract() does, and where the backbone built is not the one that the space names.
    """
    digests = manifest.digests(rows)
    try:
        found, _ = store.read(space, digests)
    except MissingRows as lost:
        built = backbone()
        if space_of(built, space.precision) != space:
            raise UserError(
                f"{len(lost.digests)} features are no longer in the store, and the backbone at hand "
                f"({built.fingerprint[:16]}) is not the one that they came from ({space.fingerprint[:16]}); run "
                "extract again"
            ) from None
        extract(manifest, rows, loader, built, store, device=device, precision=space.precision, label="recompute")
        found, _ = store.read(space, digests)
    return found.astype(np.float32)


def decoded(sample: Sample, loader: Loader) -> Any:
    """A sample in memory, provided that it still is what its digest says. Raises UserError where it has changed."""
    try:
        if isinstance(sample.source, Path):  # its features would be kept under the old digest for good
            with sample.source.open("rb") as stream:
                if hashlib.file_digest(stream, "md5").hexdigest() != sample.digest:
                    raise DecodeError("other bytes")
        return loader.decode(sample.source)
    except (DecodeError, OSError) as error:
        raise UserError(f"{sample.id} has changed since it was checked ({error}); run again") from error


def embed(backbone: Backbone, windows: Sequence[Prepared], device: torch.device, precision: str) -> Tensor:
    """Embeddings of prepared samples, float32 [N, D] on the CPU, bit for bit as the store would give them.

    Windows are computed by bucket in batches of fixed shape; a sample's row is the mean over its windows.
    """
    rows = dict(_embedded(backbone, enumerate(windows), device, precision))
    if not rows:
        return torch.zeros(0, backbone.feature_dim)
    result = torch.stack([rows[i] for i in range(len(windows))])
    return result.half().float() if DTYPES[precision] == np.float16 else result


def collate_samples(backbone: Backbone, prepared: Sequence[Prepared]) -> list[tuple[int, State, Tensor]]:
    """Samples as batches for training: (bucket, batch, owner of each of its windows, int64), by bucket.

    A bucket's windows come in one batch, as many as there are: gradients should not see windows twice.
    """
    buckets: dict[int, list[tuple[State, int]]] = {}
    for owner, sample in enumerate(prepared):
        for window in sample.windows:
            buckets.setdefault(backbone.bucket(window), []).append((window, owner))
    return [
        (bucket, backbone.collate([w for w, _ in items]), torch.tensor([owner for _, owner in items]))
        for bucket, items in sorted(buckets.items())
    ]


def pool_windows(outputs: Tensor, owners: Tensor, n: int) -> Tensor:
    """The mean over each sample's windows, in float32: [W, D] and int64 [W] -> [n, D]; differentiable.

    Adds in the order given (on the CPU), so that a sample's bits do not depend on its company.
    """
    outputs = outputs.float()
    total = outputs.new_zeros(n, outputs.shape[1]).index_add(0, owners, outputs)
    counts = torch.bincount(owners, minlength=n).clamp(min=1)
    return total / counts.unsqueeze(1)  # [n, D] / [n, 1]


@dataclass
class _Pending(Generic[K]):
    """A sample on its way; outputs by (bucket, number of the window), the order that they are pooled in."""

    key: K
    count: int
    outputs: dict[tuple[int, int], Tensor] = field(default_factory=dict)


Queue = list[tuple[State, tuple[int, int], _Pending[K]]]


def _embedded(
    backbone: Backbone, items: Iterable[tuple[K, Prepared]], device: torch.device, precision: str
) -> Iterator[tuple[K, Tensor]]:
    """(key, embedding float32 [D]) of each sample as soon as its last window is through; holds a batch a bucket."""
    backbone.to(device).eval()
    queues: dict[int, Queue[K]] = {}
    for key, prepared in items:
        if not prepared.windows:
            raise ValueError(f"{type(backbone).__name__}.prepare() gave a sample without windows")
        sample = _Pending(key, len(prepared.windows))
        for number, window in enumerate(prepared.windows):
            bucket = backbone.bucket(window)
            queue = queues.setdefault(bucket, [])
            queue.append((window, (bucket, number), sample))
            if len(queue) == backbone.batch_size(bucket):
                yield from _run(backbone, queues.pop(bucket), device, precision)
    for bucket in sorted(queues):
        yield from _run(backbone, queues[bucket], device, precision)


def _run(backbone: Backbone, queue: Queue[K], device: torch.device, precision: str) -> Iterator[tuple[K, Tensor]]:
    """Compute one batch and yield the samples that are complete with it."""
    windows = [window for window, _, _ in queue]
    size = backbone.batch_size(queue[0][1][0])
    # a row's bits depend on its batch's shape, so a short batch is filled up and the surplus dropped
    state = backbone.collate(windows + windows[-1:] * (size - len(windows)))
    outputs = _forward(backbone, state, device, precision)
    if outputs.shape != (size, backbone.feature_dim):
        raise ValueError(
            f"{type(backbone).__name__} gave {list(outputs.shape)}, expected {[size, backbone.feature_dim]}"
        )
    for (_, place, sample), output in zip(queue, outputs):
        sample.outputs[place] = output
        if len(sample.outputs) == sample.count:
            ordered = torch.stack([sample.outputs[at] for at in sorted(sample.outputs)])
            yield sample.key, pool_windows(ordered, torch.zeros(sample.count, dtype=torch.int64), 1)[0]


def _forward(backbone: Backbone, state: State, device: torch.device, precision: str) -> Tensor:
    """One batch through the whole chain, float32 [B, D] on the CPU.

    In bfloat16 the last of several segments, which pools, still runs in float32: pooled in bfloat16 the cosine to
    float32 features falls from 0.9999 to 0.996.
    """
    with torch.inference_mode(), _repeatable(device):
        state = {name: tensor.to(device) for name, tensor in state.items()}
        if precision == "bfloat16":
            split = max(1, len(backbone.segment_names) - 1)
            with torch.autocast(device.type, torch.bfloat16):
                state = backbone(state, 0, split)
            state = {k: t.float() if t.dtype == torch.bfloat16 else t for k, t in state.items()}
            state = backbone(state, split)
        else:
            state = backbone(state)
        return state["x"].float().cpu()


def _repeatable(device: torch.device) -> AbstractContextManager[None]:
    """On a GPU: no kernels chosen by a race, none that add in random order, no TF32 in what is called float32."""
    if device.type == "cuda":
        return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    return nullcontext()


def _prepared(
    samples: Iterator[Sample], loader: Loader, backbone: Backbone
) -> Generator[tuple[tuple[Sample, bool], Prepared], None, None]:
    """((sample, truncated), its windows) in order; decoded by threads that run a bounded way ahead."""
    waiting: deque[tuple[Sample, Future[Prepared]]] = deque()
    pool = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode")
    try:
        for sample in samples:
            waiting.append((sample, pool.submit(_prepare, sample, loader, backbone)))
            if len(waiting) >= _AHEAD:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _result(sample: Sample, future: Future[Prepared]) -> tuple[tuple[Sample, bool], Prepared]:
    prepared = future.result()
    return (sample, prepared.truncated), prepared


def _prepare(sample: Sample, loader: Loader, backbone: Backbone) -> Prepared:
    return backbone.prepare(decoded(sample, loader))


class _Rows:
    """Rows on their way into the store, written in batches small enough that a kill loses little."""

    def __init__(self, writer: Writer, precision: str, total: int) -> None:
        self._writer = writer
        self._precision = precision
        self._total = total
        self._rows: list[tuple[Sample, Tensor, bool]] = []
        self._written = time.monotonic()

    def add(self, sample: Sample, row: Tensor, truncated: bool) -> None:
        self._rows.append((sample, row, truncated))
        if len(self._rows) >= _FLUSH_ROWS or time.monotonic() - self._written > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Store what has come together. Raises UserError naming the samples whose features are not finite."""
        if not self._rows:
            return
        samples, rows, truncated = zip(*self._rows)
        with np.errstate(over="ignore"):  # refused below
            values = torch.stack(rows).numpy().astype(DTYPES[self._precision])  # [N, D]
        wrong: list[int] = np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist()
        bad = [samples[i].id for i in wrong]
        if bad:
            more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
            remedy = "set extract.precision to float32" if values.dtype == np.float16 else "check the weights"
            raise UserError(f"features of {', '.join(bad[:5])}{more} are not finite in {self._precision}; {remedy}")
        try:
            self._writer.append(
                [sample.digest for sample in samples], values, np.array(truncated, np.uint8) * TRUNCATED
            )
        except StoreFull as full:
            raise StoreFull(full.root, full.stored, self._total - full.stored) from None
        self._rows.clear()
        self._written = time.monotonic()
