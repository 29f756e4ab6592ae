"""Which rows an epoch draws, in which order and in which batches."""

from __future__ import annotations

import numpy as np


def drawn(rows: np.ndarray, seeds: tuple[int, int], labels: np.ndarray | None = None) -> np.ndarray:
    """As many rows as there are, in the random order of these seeds (the run's, the epoch's).

    labels: int64 [N], the rows' classes where these are to count alike: then each class that has rows gets as many
    places as any other, to one; a small one's rows come again and again, a large one's take turns over the epochs.
    """
    rng = np.random.default_rng(list(seeds))
    if labels is None:
        return rng.permutation(rows)
    classes = rng.permutation(np.unique(labels))
    places = [len(part) for part in np.array_split(np.arange(len(rows)), len(classes))]
    found = []
    for label, wanted in zip(classes, places, strict=True):
        of_class = rows[labels == label]
        rounds = -(-wanted // len(of_class))
        found.append(np.concatenate([of_class[:0], *(rng.permutation(of_class) for _ in range(rounds))])[:wanted])
    return rng.permutation(np.concatenate(found))


def even_batches(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Rows in batches of at most `size`, as even as can be: no last batch of one, which batch-norm can't take."""
    return list(np.array_split(rows, max(1, -(-len(rows) // size))))
