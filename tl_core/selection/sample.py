"""Stratified samples of the training rows, whole or growing, and the strata that sample and folds share."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from tl_core.types import Task

if TYPE_CHECKING:
    from tl_core.manifest import Manifest

_BINS = 10  # strata of a regression's values
_LEAST = 2  # rows per stratum where it has them: one to learn from, one to check
_LEAST_NESTED = 4  # the same for the race's first round, whose folds learn from four fifths of it
_FIRST = 120  # rows of the first round, at least: below, hardly any candidate is told from another


def strata(targets: np.ndarray, task: Task) -> np.ndarray:
    """The stratum of each row, int64 [N]: its class, its rarest label, or the tenth that its value lies in."""
    if task == "multiclass":
        return targets.astype(np.int64)
    if task == "multilabel":
        counts = (targets > 0).sum(axis=0)
        rarity = np.where(targets > 0, counts, len(targets) + 1)  # [N, C]
        rarest: np.ndarray = np.where((targets > 0).any(axis=1), rarity.argmin(axis=1), targets.shape[1])
        return rarest
    ranks = np.empty(len(targets), np.int64)
    ranks[np.argsort(targets, kind="stable")] = np.arange(len(targets))
    return ranks * _BINS // max(1, len(targets))


def stratified_sample(manifest: Manifest, n: int, seed: int) -> np.ndarray:
    """At most n training rows in manifest order, int64: every stratum in proportion, and at least two rows of it.

    Rows are drawn by a hash of seed and digest, so that a data set that grows keeps most of its sample (and with
    it the features). Where n can't hold two rows of every stratum, they get one, and the largest come first.
    """
    rows = manifest.rows("train")
    if len(rows) <= n:
        return rows
    keys = [hashlib.blake2b(f"{seed}:{d}".encode(), digest_size=8).digest() for d in manifest.digests(rows)]
    groups = strata(manifest.target_array(rows), manifest.targets.task)
    order = np.array(sorted(range(len(rows)), key=lambda i: (keys[i], i)))
    quotas = _quotas(np.bincount(groups), n)
    taken = [order[groups[order] == stratum][:quota] for stratum, quota in enumerate(quotas) if quota]
    return np.sort(rows[np.concatenate(taken)])


def nested_sample(manifest: Manifest, n: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """At most n training rows in an order whose beginnings are samples themselves, int64, and how long these are.

    Each beginning holds the strata in proportion, and at least four rows of each where it has them (one, two, three
    of each before the next, where there are more strata than that; the largest first). Those come from as many groups
    as there are. The lengths double up to the whole; the first is 120 to 240 rows, or what those rows of all strata
    take. Rows are drawn by a hash of seed and digest, as in stratified_sample().
    """
    rows = manifest.rows("train")
    keys = [hashlib.blake2b(f"{seed}:{d}".encode(), digest_size=8).digest() for d in manifest.digests(rows)]
    drawn = np.array(sorted(range(len(rows)), key=lambda i: (keys[i], i)), np.int64)
    stratum = strata(manifest.target_array(rows), manifest.targets.task)[drawn]
    groups = manifest.groups(rows)
    if groups is not None:
        group = np.unique(groups, return_inverse=True)[1][drawn]
        spread = np.lexsort((_nth(stratum, group), stratum))  # a stratum's first row of each group, the second, ...
        head = spread[_nth(stratum[spread]) < _LEAST_NESTED]
        late = np.ones(len(rows), bool)
        late[head] = False
        places = np.concatenate([head, np.flatnonzero(late)])
        drawn, stratum = drawn[places], stratum[places]
    place, counts = _nth(stratum), np.bincount(stratum)[stratum]
    rest = place >= _LEAST_NESTED
    # the least of each stratum by turns, then each when its share is due
    order = np.lexsort((np.where(rest, 0, -counts), np.where(rest, (place + 0.5) / counts, place), rest))[:n]
    return rows[drawn[order]], _lengths(len(order), int(np.count_nonzero(~rest)))


def _lengths(n: int, least: int) -> list[int]:
    """n, halved as long as it stays large enough; the smallest first."""
    lengths = [n]
    while lengths[0] // 2 >= max(_FIRST, least):
        lengths.insert(0, lengths[0] // 2)
    return lengths


def _nth(*keys: np.ndarray) -> np.ndarray:
    """How many rows of the same keys stand before each row, int64 [N]."""
    same = np.unique(np.stack(keys), axis=1, return_inverse=True)[1].ravel()
    order = np.argsort(same, kind="stable")
    starts = np.cumsum(np.bincount(same))[same[order]] - np.bincount(same)[same[order]]
    found = np.empty(len(same), np.int64)
    found[order] = np.arange(len(same)) - starts
    return found


def _quotas(counts: np.ndarray, n: int) -> np.ndarray:
    """Rows to take of each stratum, summing to n: first the least that each needs, the rest in proportion."""
    quotas = np.zeros_like(counts)
    for _ in range(_LEAST):
        more = (counts > quotas).astype(counts.dtype)
        if quotas.sum() + more.sum() <= n:
            quotas += more
    if not quotas.any():  # more strata than rows
        quotas[np.argsort(-counts, kind="stable")[:n]] = 1
        return quotas
    while (short := n - int(quotas.sum())) > 0:
        lacking = np.where(quotas < counts, counts * n / counts.sum() - quotas, -np.inf)
        worst = np.argsort(-lacking, kind="stable")[: min(short, int((quotas < counts).sum()))]
        step = np.maximum(1, np.floor(lacking[worst])).astype(counts.dtype)
        step = np.minimum(step, (counts - quotas)[worst])
        before = np.concatenate([[0], np.cumsum(step)[:-1]])
        quotas[worst] += np.clip(short - before, 0, step).astype(counts.dtype)
    return quotas
