"""Training, validation and test: the data's own splits, and what is carved out of train where one is missing."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np

from tl_core.config import RunConfig
from tl_core.errors import UserError
from tl_core.types import SPLITS

TRAIN, VAL, TEST = range(3)  # positions in tl_core.types.SPLITS
NONE = np.zeros(0, np.int64)  # no row


@dataclass(frozen=True)
class Units:
    """What must stay on one side of a split: rows of one group, or rows of one content.

    of_row: int64 [N], the row's unit; names: by unit.
    """

    of_row: np.ndarray
    names: tuple[str, ...]

    def rank(self, salt: str) -> np.ndarray:
        """uint64 [units]: places in a random order.

        The salt and the unit's own name decide alone: other rows may come and go without moving it.
        """
        start = hashlib.md5(f"{salt}:".encode(), usedforsecurity=False)
        ranks = np.empty(len(self.names), np.uint64)
        for unit, name in enumerate(self.names):
            state = start.copy()
            state.update(name.encode())
            ranks[unit] = int.from_bytes(state.digest()[:8], "big")
        return ranks


def make_units(contents: np.ndarray, names: Sequence[str], groups: Sequence[str | None] | None) -> Units:
    """One unit a content, or a group; groups that share a content are one.

    contents: int64 [N] into names (digests); groups: the rows' group values, None for a row on its own.
    """
    if groups is None:
        return Units(contents, tuple(names))
    values = [f"group {g}" if g is not None else f"content {names[c]}" for g, c in zip(groups, contents)]
    distinct = sorted(set(values))
    place = {value: i for i, value in enumerate(distinct)}
    of_row = np.array([place[value] for value in values], np.int64)
    parent = list(range(len(distinct)))

    def top(unit: int) -> int:
        while parent[unit] != unit:
            parent[unit] = parent[parent[unit]]
            unit = parent[unit]
        return unit

    holder: dict[int, int] = {}
    for content, unit in np.unique(np.stack([contents, of_row], axis=1), axis=0).tolist():
        low, high = sorted((top(holder.setdefault(content, unit)), top(unit)))
        parent[high] = low  # the first name in order stands for all
    tops, merged = np.unique([top(unit) for unit in range(len(distinct))], return_inverse=True)
    return Units(merged[of_row], tuple(distinct[unit] for unit in tops))


def assign(
    official: np.ndarray,
    given: Container[int],
    units: Units,
    strata: np.ndarray,
    config: RunConfig,
    held: np.ndarray | None = None,
) -> tuple[np.ndarray, list[str]]:
    """int8 [N]: each row's split, and notes on what was carved out of train.

    official: int8 [N], -1 where the data say none (those rows count as train); given: the splits that the data
    bring; strata: int64 [N], what keeps its share; held: bool [N], rows that stay in test together with all else of
    their unit, and count as a part of its share. Raises UserError where groups can't be kept whole.
    """
    splits = np.where(official < 0, TRAIN, official).astype(np.int8)
    if held is None:
        held = np.zeros(len(splits), bool)
    kept = np.zeros(len(units.names), bool)
    kept[units.of_row[held]] = True
    held = kept[units.of_row]
    splits[held] = TEST
    grouped = config.data.group is not None
    notes = []
    for split, fraction in ((TEST, config.data.test_fraction), (VAL, config.data.val_fraction)):
        train = np.flatnonzero(splits == TRAIN)
        if split in given or not len(train):
            continue
        # a class of three or more units leaves one for each split that is still to be carved
        reserve = 1 + (split == TEST and VAL not in given)
        salt = f"{config.seed}:{SPLITS[split]}"
        cut = carve_groups if grouped else carve
        there = np.flatnonzero(held) if split == TEST else train[:0]
        taken = cut(train, units, strata, fraction, salt, reserve, there)
        splits[taken] = split
        how = f"whole groups of '{config.data.group}'" if grouped else "stratified"
        beside = f", beside {len(there)} that are held there" if len(there) else ""
        notes.append(
            f"no {SPLITS[split]} split in the data: {len(taken)} of {len(train)} training rows taken{beside}, {how}, "
            f"seed {config.seed} (data.{SPLITS[split]}_fraction {fraction:g})"
        )
    return splits, notes


def carve(
    rows: np.ndarray,
    units: Units,
    strata: np.ndarray,
    fraction: float,
    salt: str,
    reserve: int,
    there: np.ndarray = NONE,
) -> np.ndarray:
    """Rows [M] of `rows` for a new split: in each stratum the first units by rank, up to ceil(fraction * n) of them.

    reserve: units of a stratum that stay, where it has more than that many (at least one always stays); there: rows
    that are in the new split already, and count among its stratum's n units and among those taken. Where most units up
    to the last of these are there, they were carved like this before, and just the new ones among them follow: a row
    that has been trained on does not become a test row because others have joined.
    """
    used, first = np.unique(units.of_row[rows], return_index=True)
    stratum = strata[rows[first]]
    ranks = units.rank(salt)
    held, first_there = np.unique(units.of_row[there], return_index=True)
    held_strata = strata[there[first_there]]
    before = Counter(held_strata.tolist())
    rank = ranks[used]
    order = np.lexsort((rank, stratum))
    taken = np.zeros(len(units.names), bool)
    for members in np.split(order, np.flatnonzero(np.diff(stratum[order])) + 1):
        n, already = len(members), before[int(stratum[members[0]])]
        stay = reserve if n > reserve else 1
        take = math.ceil(fraction * (n + already) - 1e-9) - already
        if already:
            among = int((rank[members] < ranks[held][held_strata == stratum[members[0]]].max()).sum())
            take = among if among <= already else take
        take = max(0, min(take, n - stay))
        taken[used[members[:take]]] = True
    chosen: np.ndarray = rows[taken[units.of_row[rows]]]
    return chosen


def carve_groups(
    rows: np.ndarray,
    units: Units,
    strata: np.ndarray,
    fraction: float,
    salt: str,
    reserve: int,
    there: np.ndarray = NONE,
) -> np.ndarray:
    """Rows [M] of `rows` for a new split, by whole units: in order of rank, each that brings the shares closer.

    reserve: units that stay; and of every stratum some row stays; there: as for carve(). Raises UserError where no unit
    can be taken and none is there.
    """
    names, both = np.unique(strata[np.concatenate([rows, there])], return_inverse=True)
    stratum, totals = both[: len(rows)], np.bincount(both)
    wanted, weight = fraction * totals, 1 / totals
    used, unit = np.unique(units.of_row[rows], return_inverse=True)
    by_unit = np.argsort(unit, kind="stable")
    members = np.split(stratum[by_unit], np.flatnonzero(np.diff(unit[by_unit])) + 1)
    have = np.bincount(both[len(rows) :], minlength=len(names)).astype(np.float64)
    chosen: list[int] = []
    best: tuple[float, int] | None = None
    for candidate in np.argsort(units.rank(salt)[used], kind="stable").tolist():
        if len(used) - len(chosen) <= reserve:
            break
        touched, count = np.unique(members[candidate], return_counts=True)
        after = have[touched] + count
        if np.any(after >= totals[touched]):  # not its last rows
            continue
        gain = np.sum((np.abs(have[touched] - wanted[touched]) - np.abs(after - wanted[touched])) * weight[touched])
        if gain > 1e-12:
            have[touched] = after
            chosen.append(candidate)
        elif not chosen and not len(there) and (best is None or gain > best[0]):
            best = (float(gain), candidate)
    if not chosen and best is not None:
        chosen = [best[1]]
    if not chosen and not len(there):
        why = "each of them is the only one of some class"
        if len(used) <= reserve:
            why = f"at least {reserve + 1} are needed"
        raise UserError(
            f"can't split by group: what is left for training has {len(used)} separate groups, and {why}; "
            "give the splits in a column, or leave data.group unset"
        )
    found: np.ndarray = rows[np.isin(unit, chosen)]
    return found
