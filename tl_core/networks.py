"""The central types that are networks: a backbone as a chain of segments, and a head. They alone need torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tl_core.errors import UserError, did_you_mean
from tl_core.types import END, Identity, Prepared

State = dict[str, Tensor]
"""What flows through the segments: key `x` is the main tensor, other keys (a mask, say) ride along."""


class Backbone(nn.Module, ABC):
    """A pretrained network as an ordered chain of named segments (stem, blocks, pool).

    Each segment maps a `State` to a `State`; after the last one `state["x"]` is the embedding [B, feature_dim].
    Freezing is which segments train; a cut is a segment boundary; export is a span.

    need: what the loader must deliver (`Loader.decode_for`), a matter between a plugin's loader and its backbones;
    where it changes the pixels or samples it belongs into `identity.preprocessing`. ragged: whether windows differ in
    shape or samples have several of them, so that the rows of an inner cut have no one shape. padded: whether windows
    of several buckets may share a batch as wide as the widest in training, since what they are padded with is masked.
    """

    need: Any = None
    ragged: bool = False
    padded: bool = False

    def __init__(self, segments: Sequence[tuple[str, nn.Module]], feature_dim: int, identity: Identity) -> None:
        super().__init__()
        self.segments = nn.ModuleDict(dict(segments))
        self.feature_dim = feature_dim
        self.identity = identity

    @property
    def fingerprint(self) -> str:
        """Names the backbone in the feature store."""
        return self.identity.fingerprint

    @property
    def segment_names(self) -> tuple[str, ...]:
        """Names of the segments, in order."""
        return tuple(self.segments)

    @abstractmethod
    def prepare(self, decoded: Any) -> Prepared:
        """One decoded sample as windows; deterministic, no batch dimension, no padding to company."""

    def prepare_many(self, decoded: Iterable[Any]) -> list[Prepared]:
        """prepare() of each, for plugins that are faster in batches; called from several threads at once.

        decoded: decoded one by one as it is iterated over, so that large samples need not lie in memory together.
        """
        return [self.prepare(one) for one in decoded]

    @abstractmethod
    def collate(self, windows: Sequence[State]) -> State:
        """Windows of one bucket as a batch, padded to the bucket's width, never to each other."""

    def perturb(self, state: State, rng: np.random.Generator) -> State:
        """A random variant of a batch of windows on its way into training; by default the batch as it is.

        state: as collate() gives it, left unchanged. For what is done to a front end's output, such as masks over a
        spectrogram; `Loader.augment` varies the sample itself. Never called in evaluation or extraction.
        """
        return state

    def bucket(self, window: State) -> int:
        """The padded width that a window is computed at; windows of one bucket share forward shapes.

        0 where all windows have one shape: engines then prepare for that shape alone.
        """
        return 0

    def batch_size(self, bucket: int) -> int:
        """Rows of a forward batch in this bucket on a CPU; engines take a fixed multiple.

        Fixed, because a row's bits depend on the batch's shape. Small is good: a rest is filled up to it, and a CPU
        gains nothing above some 500 tokens, 8 images or one clip.
        """
        return 8

    def embedding_only(self) -> AbstractContextManager[None]:
        """While this holds, nobody looks at the states between segments, only at the embedding.

        A network may then leave out what does not reach it. By default nothing.
        """
        return nullcontext()

    def boundary_rows(self, state: State, windows: Sequence[State]) -> list[State]:
        """A batch's state at an inner cut as one state per window, without batch dimension and without padding.

        windows: what the batch was collated from; the batch may hold more rows, which are dropped. Tensors that
        collate_boundary() can make again need not be among them.
        """
        return [{key: tensor[i] for key, tensor in state.items()} for i in range(len(windows))]

    def boundary_bucket(self, row: State) -> int:
        """Rows of one boundary bucket can be collated: by default those with as long an `x`."""
        return len(row["x"]) if self.ragged else 0

    def collate_boundary(self, rows: Sequence[State]) -> State:
        """Rows of one boundary bucket as the state that forward(state, start=cut) takes."""
        return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}

    def example(self) -> State | None:
        """A window of ordinary content, as prepare() gives it, by which the widths of the states are found.

        None, the default, where there is none: such a backbone has no views (`NAME#SEGMENT`).
        """
        return None

    def pooled(self, state: State) -> Tensor:
        """A state between two segments as one vector a row, float32 [B, D], which depends on no other row.

        By default the mean over the positions of [B, C, H, W], or over the tokens of [B, T, D], those that `mask`
        [B, T] or the first `frames` [B] of the state say; [B, D] as it is. Raises ValueError on any other shape.
        """
        x = state["x"].float()
        if x.ndim == 4:
            return x.mean(dim=(2, 3))  # [B, C, H, W] -> [B, C]
        if x.ndim == 2:
            return x
        if x.ndim != 3:
            raise ValueError(f"{type(self).__name__} can't pool a state of shape {list(x.shape)}")
        if "mask" in state:
            seen = state["mask"].to(x.dtype)  # [B, T]
        elif "frames" in state:
            seen = (torch.arange(x.shape[1], device=x.device) < state["frames"].unsqueeze(1)).to(x.dtype)
        else:
            return x.mean(dim=1)  # [B, T, D] -> [B, D]
        return (x * seen.unsqueeze(2)).sum(dim=1) / seen.sum(dim=1, keepdim=True).clamp(min=1)

    def spatial(self, state: State) -> Tensor | None:
        """The `x` of a state between two segments by its places in the window: [B, C, H, W], None where it has none.

        A rearrangement of the values, no more: gradients go through it as well. By default [B, C, H, W] as it is and
        tokens [B, T, D] as [B, D, 1, T].
        """
        x = state["x"]
        if x.ndim == 4:
            return x
        return x.transpose(1, 2).unsqueeze(2) if x.ndim == 3 else None

    def places(self, decoded: Any) -> Sequence[Any] | None:
        """What of the sample each window of prepare(decoded) stands for, in a form that `Loader.overlay` draws by.

        None, the default, where it can't be told: then nothing is explained.
        """
        return None

    def blank(self, window: State) -> State | None:
        """The window with nothing in it (padding for words), which explanations of words and tokens start from.

        None, the default: the average of all words that the network knows, or the window's mean throughout.
        """
        return None

    def segment(self, cut: str) -> int:
        """Index of the segment that comes after the cut of this name; the number of segments for `end`.

        Raises UserError where no segment is called so.
        """
        if cut == END:
            return len(self.segments)
        if cut not in self.segments:
            cuts = ", ".join([*self.segment_names[1:], END])
            raise UserError(f"no cut {cut!r}{did_you_mean(cut, self.segment_names) or ';'} this backbone has {cuts}")
        return self.segment_names.index(cut)

    def forward(self, state: State, start: int = 0, stop: int | None = None) -> State:
        """Run segments start..stop-1 (all by default)."""
        for segment in list(self.segments.values())[start:stop]:
            state = segment(state)
        return state


class Head(nn.Module, ABC):
    """A task's end: from embeddings to logits, loss and predictions."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Logits [B, outputs] for features [B, feature_dim]."""

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean loss. targets: int64 [B] (multiclass), float32 [B, C] (multilabel), float32 [B] (regression).

        Label smoothing needs a loss that takes probabilities too: of the classes, float32 [B, C] (multiclass), and
        multilabel targets between 0 and 1.
        """

    @abstractmethod
    def decode(self, logits: Tensor) -> Tensor:
        """Probabilities [B, C] (multiclass, multilabel) or values [B] (regression)."""
