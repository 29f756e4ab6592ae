"""Freezing a test set, finding it again in later data, and when a new version is due."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tl_core.errors import UserError
from tl_core.gate import freeze, match, renewed

from .material import Row, digests, manifest, relabelled, rows

TRAIN = rows(40, "train", name="learned")
TEST = rows(20)


def test_it_holds_each_usable_test_content_once_with_its_label() -> None:
    odd = [
        Row("text 0", "a", "test"),  # a copy
        Row("torn", "a", "test"), Row("torn", "b", "test"),
        Row("broken", "a", "test", reason="unreadable"),
    ]  # fmt: skip
    found = freeze(manifest([*TRAIN, *TEST, *odd]))
    assert set(found.labels) == digests(TEST)
    assert (found.version, found.task, found.classes) == (1, "multiclass", ("a", "b"))
    assert found.rows == tuple(sorted(found.rows))
    assert found.hash == freeze(manifest([*TEST[::-1], *TRAIN])).hash
    assert found.hash != freeze(manifest([*TEST[1:], *TRAIN])).hash
    assert found.hash != freeze(manifest([*relabelled(TEST[:1], "b"), *TEST[1:], *TRAIN])).hash


def test_nothing_to_freeze_is_refused() -> None:
    with pytest.raises(UserError, match=r"no usable test row to freeze; .* data\.test_fraction"):
        freeze(manifest(TRAIN))


def test_the_same_data_hold_all_of_it_and_nothing_is_due() -> None:
    data = manifest([*TRAIN, *TEST])
    found = match(freeze(data), data, renew_share=0.5)
    assert data.digests(found.present) == data.digests(data.rows("test"))
    assert (len(found.relabelled), len(found.added), found.gone, found.quarantined, found.due) == (0, 0, (), (), ())


def test_a_content_that_has_another_label_in_training_is_no_test_and_makes_no_version_due() -> None:
    twins = [Row("torn", "a", "test"), Row("torn", "b", "train"), Row("text 0", "a", "train")]
    data = manifest([*TRAIN, *TEST, *twins])
    test_set = freeze(data)
    assert set(test_set.labels) == digests(TEST)
    found = match(test_set, data, renew_share=0.0)
    assert (len(found.relabelled), len(found.added), found.due) == (0, 0, ())


def test_what_became_of_each_row_is_told() -> None:
    test_set = freeze(manifest([*TRAIN, *TEST]))
    new = rows(3, name="new")
    broken = replace(TEST[3], reason="unreadable")
    now = manifest([*TRAIN, *TEST[4:], *relabelled(TEST[1:2], "a"), relabelled(TEST[2:3], "b")[0], broken, *new])
    found = match(test_set, now, renew_share=0.5)
    assert set(now.digests(found.present)) == digests(TEST[4:])
    assert set(now.digests(found.relabelled)) == digests(TEST[1:3])
    assert set(now.digests(found.added)) == digests(new)
    assert set(found.gone) == digests(TEST[:1])
    assert set(found.quarantined) == digests([broken])
    assert found.due == (
        "1 of its 20 rows is gone from the data",
        "2 of its 20 rows are labelled otherwise now",
    )


def test_a_new_class_with_test_rows_makes_a_version_due_and_one_without_does_not() -> None:
    test_set = freeze(manifest([*TRAIN, *TEST]))
    learned = rows(4, "train", ["c"], "rare")
    assert match(test_set, manifest([*TRAIN, *TEST, *learned]), renew_share=0.5).due == ()
    now = manifest([*TRAIN, *TEST, *learned, Row("c in test", "c", "test")])
    assert match(test_set, now, renew_share=0.5).due == ("it has no row of the class 'c', which the data have now",)
    again = renewed(test_set, now)
    assert (again.version, again.classes, len(again)) == (2, ("a", "b", "c"), 21)
    assert match(again, now, renew_share=0.5).due == ()


def test_many_new_rows_make_a_version_due() -> None:
    test_set = freeze(manifest([*TRAIN, *TEST]))
    for count, due in ((10, 0), (11, 1)):
        found = match(test_set, manifest([*TRAIN, *TEST, *rows(count, name="new")]), renew_share=0.5)
        assert len(found.due) == due
    assert found.due[0].startswith("11 test rows have come since it was frozen, more than 50% of its 20 (gate.renew")


def test_a_renewed_set_drops_what_is_gone_and_takes_new_labels() -> None:
    test_set = freeze(manifest([*TRAIN, *TEST]))
    now = manifest([*TRAIN, *TEST[2:], *relabelled(TEST[1:2], "a"), *rows(2, name="new")])
    again = renewed(test_set, now)
    assert set(again.labels) == digests([*TEST[1:], *rows(2, name="new")])
    assert again.labels[next(iter(digests(TEST[1:2])))] == "a"
    assert match(again, now, renew_share=0.5).due == ()


def test_numbers_are_the_same_however_they_are_written_and_labels_are_sets() -> None:
    values = [Row(f"text {i}", f"{i}.5", "test") for i in range(4)]
    test_set = freeze(manifest(values, "regression"))
    assert test_set.classes == ()
    now = [replace(values[0], label="0.50"), replace(values[1], label="7"), *values[2:]]
    found = match(test_set, manifest(now, "regression"), renew_share=0.5)
    assert (len(found.present), len(found.relabelled)) == (3, 1)
    tags = [Row("one", "a|b", "test"), Row("two", "", "test"), Row("three", "c", "test")]
    assert freeze(manifest(tags, "multilabel")).classes == ("a", "b", "c")


def test_another_task_is_refused_with_a_remedy() -> None:
    with pytest.raises(UserError, match=r"frozen for a multiclass task and the data are regression: set data\.task"):
        match(freeze(manifest(TEST)), manifest(rows(4, labels=["1.5", "2.5"]), "regression"), renew_share=0.5)
