"""What can be said of samples without any network, as features that a probe learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from tl_core.evaluation.terms import fit_terms
from tl_core.extraction import decoded, extract, features, space_of
from tl_core.store import FeatureStore
from tl_core.types import Backbone, Identity, Loader, Prepared, State

if TYPE_CHECKING:
    from tl_core.manifest import Manifest


def plain_features(
    manifest: Manifest, loader: Loader, store: FeatureStore, train: np.ndarray, *others: np.ndarray
) -> tuple[np.ndarray, ...] | None:
    """Plain features of the training rows and of other rows, float32 [N, D] each; None where there are none.

    Numbers go through the store, as a backbone's features do, so that a rerun computes none. Terms are counted anew,
    and what features they become is decided by the training rows alone. Raises UserError where a sample is no longer
    what was checked.
    """
    first = loader.plain(decoded(next(manifest.samples(train[:1])), loader))
    if first is None:
        return None
    if isinstance(first, np.ndarray):
        return _stored(manifest, loader, store, len(first), (train, *others))
    bags = [_bags(manifest, loader, rows) for rows in (train, *others)]
    if not any(bags[0]):
        return None
    terms = fit_terms(bags[0])
    return tuple(terms.of(part) for part in bags)


class PlainFeatures(Backbone):
    """What a loader says of a sample, as a backbone without weights: the store keeps its rows like any other's."""

    def __init__(self, loader: Loader, width: int) -> None:
        facts = {"loader": loader.version, "plain": loader.plain_version, **loader.libraries()}
        identity = Identity("none", facts, f"plain features of {loader.modality}")
        super().__init__([("plain", nn.Identity())], width, identity)
        self._loader = loader

    def prepare(self, decoded: Any) -> Prepared:
        return Prepared(({"x": torch.from_numpy(np.array(self._loader.plain(decoded), np.float32))},))

    def collate(self, windows: Sequence[State]) -> State:
        return {"x": torch.stack([window["x"] for window in windows])}  # [B, D]


def _stored(
    manifest: Manifest, loader: Loader, store: FeatureStore, width: int, parts: Sequence[np.ndarray]
) -> tuple[np.ndarray, ...]:
    described, where = PlainFeatures(loader, width), {"device": "cpu", "engine": "torch"}
    extract(
        manifest, np.concatenate(parts), loader, described, store, precision="float32", label="plain features", **where
    )
    space = space_of(described, "float32")
    return tuple(features(manifest, rows, loader, lambda: described, space, store, **where) for rows in parts)


def _bags(manifest: Manifest, loader: Loader, rows: np.ndarray) -> list[Mapping[str, float]]:
    bags = []
    for sample in manifest.samples(rows):
        said = loader.plain(decoded(sample, loader))
        if not isinstance(said, Mapping):
            raise ValueError(f"plain() gives terms of one sample and {type(said).__name__} of {sample.id}")
        bags.append(said)
    return bags
