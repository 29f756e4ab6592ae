"""Reading what was cached at an inner cut, so that training can start there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tl_core.extraction.rows import unpacked
from tl_core.store import TRUNCATED, FeatureStore, Space
from tl_core.store.spaces import open_space
from tl_core.types import Prepared

if TYPE_CHECKING:
    from tl_core.manifest import Manifest


def boundaries(manifest: Manifest, rows: np.ndarray, space: Space, store: FeatureStore) -> list[Prepared]:
    """The states of the manifest's rows at the space's cut, window by window, floats as float32.

    They all lie in memory: ask for as many rows as a training step takes. Batches of one `boundary_bucket` go
    through `collate_boundary` into `forward(state, start=backbone.segment(space.cut))`. Raises MissingRows.
    """
    digests = manifest.digests(rows)
    facts = open_space(space.folder(store.root), space)
    if facts is not None and facts.ragged:
        found, flags = store.read_ragged(space, digests)
        return [unpacked(row, bool(flag & TRUNCATED)) for row, flag in zip(found, flags, strict=True)]
    array, flags = store.read(space, digests)
    return [unpacked(row, bool(flag & TRUNCATED)) for row, flag in zip(array, flags, strict=True)]
