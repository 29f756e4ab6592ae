"""How rows are dealt to train, val and test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tl_core.config import RunConfig, load_config
from tl_core.digests import text_digest
from tl_core.errors import UserError
from tl_core.manifest.duplicates import contradictions, several
from tl_core.manifest.splits import TEST, TRAIN, VAL, assign, make_units

CONFIG = RunConfig()
GROUPED = load_config(None, ["data.group=who"])


def names(n: int, start: int = 0) -> list[str]:
    return [text_digest(str(i)) for i in range(start, start + n)]


def deal(
    labels: np.ndarray, digests: list[str], groups: list[str | None] | None = None, config: RunConfig = CONFIG
) -> np.ndarray:
    distinct = sorted(set(digests))
    contents = np.array([distinct.index(d) for d in digests])
    units = make_units(contents, distinct, groups)
    splits, _ = assign(np.full(len(labels), -1, np.int8), (), units, labels, config)
    return splits


def per_class(labels: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """[classes, 3] counts."""
    return np.stack([np.bincount(splits[labels == c], minlength=3) for c in np.unique(labels)])


@pytest.mark.parametrize(
    ("n", "expected"), [(2, (1, 0, 1)), (3, (1, 1, 1)), (4, (2, 1, 1)), (10, (6, 2, 2)), (100, (68, 12, 20))]
)
def test_every_class_gets_its_share(n: int, expected: tuple[int, int, int]) -> None:
    labels = np.repeat([0, 1, 2], n)
    counts = per_class(labels, deal(labels, names(3 * n)))
    assert counts.tolist() == [list(expected)] * 3


def test_the_seed_decides_and_the_order_does_not() -> None:
    labels = np.arange(300) % 3
    digests = names(300)
    splits = deal(labels, digests)
    order = np.random.default_rng(0).permutation(300)
    assert np.array_equal(deal(labels[order], [digests[i] for i in order]), splits[order])
    assert not np.array_equal(deal(labels, digests, config=load_config(None, ["seed=1"])), splits)


def test_one_percent_more_data_moves_few_rows() -> None:
    labels = np.arange(2020) % 10
    digests = names(2020)
    before, after = deal(labels[:2000], digests[:2000]), deal(labels, digests)
    assert np.sum(before != after[:2000]) <= 20


def test_copies_stay_together() -> None:
    digests = names(100) * 2
    splits = deal(np.arange(200) % 4, digests)
    assert np.array_equal(splits[:100], splits[100:])


def test_groups_never_cross_and_keep_the_shares_close() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 2000)
    groups: list[str | None] = [f"g{i}" for i in rng.integers(0, 60, 2000)]
    splits = deal(labels, names(2000), groups, GROUPED)
    assert not several(np.unique(groups, return_inverse=True)[1], splits).any()
    shares = per_class(labels, splits) / np.bincount(labels)[:, None]
    assert np.abs(shares - [0.68, 0.12, 0.2]).max() < 0.05


def test_groups_that_share_a_copy_are_one_group() -> None:
    digests = names(40)
    digests[39] = digests[0]
    groups: list[str | None] = [f"g{i // 4}" for i in range(40)]
    splits = deal(np.arange(40) % 2, digests, groups, GROUPED)
    assert len(set(splits[:4]) | set(splits[36:])) == 1
    assert set(splits) == {TRAIN, VAL, TEST}


def test_a_row_without_a_group_is_its_own() -> None:
    groups: list[str | None] = [None] * 40
    splits = deal(np.arange(40) % 2, names(40), groups, GROUPED)
    assert np.bincount(splits).tolist()[TEST] == 8


def test_few_groups_give_one_each() -> None:
    labels = np.arange(30) % 2
    splits = deal(labels, names(30), [f"g{i // 10}" for i in range(30)], GROUPED)
    assert sorted(np.bincount(splits)) == [10, 10, 10]


@pytest.mark.parametrize(
    ("groups", "why"),
    [(["a", "b"] * 10, "2 separate groups, and at least 3 are needed"), (["a", "a", "b", "b", "c"] * 4, "some class")],
)
def test_groups_that_can_not_be_kept_whole(groups: list[str | None], why: str) -> None:
    labels = np.array([ord(str(g)) for g in groups]) if "c" in groups else np.arange(20) // 2 % 2
    with pytest.raises(UserError, match=f"can't split by group: .*{why}.*; give the splits in a column"):
        deal(labels, names(20), groups, GROUPED)


def test_official_rows_stay_and_val_comes_out_of_train() -> None:
    official = np.array([TRAIN] * 40 + [TEST] * 10, np.int8)
    units = make_units(np.arange(50), names(50), None)
    splits, notes = assign(official, {TRAIN, TEST}, units, np.arange(50) % 2, CONFIG)
    assert np.bincount(splits).tolist() == [34, 6, 10]
    assert np.array_equal(np.flatnonzero(splits == TEST), np.arange(40, 50))
    assert notes == [
        "no val split in the data: 6 of 40 training rows taken, stratified, seed 0 (data.val_fraction 0.15)"
    ]


def test_the_copy_outside_test_gives_way() -> None:
    rows = np.array([3, 5, 7, 9])
    contents, labels = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 0])
    splits = np.array([TRAIN, VAL, TRAIN, TEST])
    assert contradictions(rows, contents, labels, splits, str) == {
        3: "same content in the val split with another label (5)"
    }


def test_regression_and_many_labels_are_spread(tmp_path: Path) -> None:
    from tl_core.manifest.labels import Labels, strata

    numbers = tuple(str(i / 7) for i in range(200))
    labels = Labels("regression", None, np.arange(200), numbers, {}, "|", None)
    bins = strata(labels, np.ones(200, bool))
    assert np.bincount(bins).tolist() == [20] * 10
    assert np.all(np.diff(bins) >= 0)
    tags = Labels("multilabel", None, np.array([0, 1, 2, 2, 2, 1, 3]), ("", "a", "a|b", "b|c"), {}, "|", None)
    assert strata(tags, np.ones(7, bool)).tolist() == [3, 0, 1, 1, 1, 0, 2]
