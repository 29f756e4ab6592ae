"""Rows go in and come out, damaged ones do not."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from tl_core.errors import FormatError, UserError
from tl_core.store import TRUNCATED, FeatureStore, MissingRows, Space, SpaceInfo
from tl_core.store.rows import finite_rows
from tl_core.store.shards import RECORD

from .cases import (
    ENGINE,
    F16,
    F32,
    SPACE,
    digest,
    digests,
    only,
    put,
    rows_of,
)


def test_rows_come_back_in_the_order_asked(tmp_path: Path) -> None:
    put(tmp_path, range(50))
    assert FeatureStore(tmp_path).read(SPACE, [])[0].shape == (0, 64)
    rows, flags = FeatureStore(tmp_path).read(SPACE, digests(7, 3, 49, 3, 0))
    np.testing.assert_array_equal(rows, rows_of([7, 3, 49, 3, 0]))
    assert rows.dtype == F32
    assert flags.tolist() == [0] * 5


def test_what_is_not_there_is_absent(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "nowhere")
    assert store.present(SPACE, digests(1, 2)).tolist() == [False, False]
    with pytest.raises(MissingRows) as caught:
        store.read(SPACE, digests(1))
    assert caught.value.digests == (digest(1),)
    assert store.read(SPACE, [])[0].shape[0] == 0
    assert not (tmp_path / "nowhere").exists()

    put(tmp_path, range(3))
    store = FeatureStore(tmp_path)
    assert store.present(SPACE, digests(2, 3, 0)).tolist() == [True, False, True]
    with pytest.raises(MissingRows, match="1 rows are not in the feature store") as caught:
        store.read(SPACE, digests(0, 3))
    assert caught.value.digests == (digest(3),)


@pytest.mark.parametrize(
    "other",
    [
        Space("ab" * 31 + "cd", "end", "float32"),
        Space("ab" * 32, "pool", "float32"),
        Space("ab" * 32, "end", "bfloat16"),
    ],
    ids=["fingerprint", "cut", "precision"],
)
def test_every_part_of_the_space_is_part_of_the_key(tmp_path: Path, other: Space) -> None:
    put(tmp_path, [1])
    store = FeatureStore(tmp_path)
    if other.folder(tmp_path) == SPACE.folder(tmp_path):  # the folder's name holds 16 digits of the fingerprint
        with pytest.raises(FormatError, match="not of"):
            store.present(other, digests(1))
    else:
        assert store.present(other, digests(1)).tolist() == [False]
    assert store.present(SPACE, digests(1)).tolist() == [True]


def test_keys_that_end_in_zero_bytes_stay_apart(tmp_path: Path) -> None:
    names = ["ab" * 15 + "00", "ab" * 14 + "0000", "00" * 16, "ab" * 16]
    with FeatureStore(tmp_path).writer(SPACE, (2,), F32, ENGINE) as writer:
        writer.append(names, rows_of(range(4), 2))
    rows, _ = FeatureStore(tmp_path).read(SPACE, names[::-1])
    assert rows[:, 0].tolist() == [3, 2, 1, 0]


def test_a_digest_must_be_an_md5(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'abc' is no md5"):
        FeatureStore(tmp_path).present(SPACE, ["abc"])


def test_flags_travel_with_rows(tmp_path: Path) -> None:
    put(tmp_path, [1, 2, 3], flags=np.array([0, TRUNCATED, 0], np.uint8))
    store = FeatureStore(tmp_path)
    assert store.read(SPACE, digests(2, 1))[1].tolist() == [TRUNCATED, 0]
    assert store.flags(SPACE, digests(3, 2)).tolist() == [0, TRUNCATED]
    with pytest.raises(MissingRows):
        store.flags(SPACE, digests(4))


def test_rows_may_be_single_numbers(tmp_path: Path) -> None:
    with FeatureStore(tmp_path).writer(SPACE, (), F32, ENGINE) as writer:
        writer.append(digests(0, 1), np.array([4, 5], F32))
    assert FeatureStore(tmp_path).read(SPACE, digests(1, 0))[0].tolist() == [5, 4]


def test_rows_of_any_shape_and_dtype(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(F16)
    with FeatureStore(tmp_path).writer(SPACE, (3, 4), F16, ENGINE) as writer:
        writer.append(digests(0, 1, 2), values[:3])
        writer.append(digests(3, 4), values[3:].astype(F32))  # cast to the space's dtype
    rows, _ = FeatureStore(tmp_path).read(SPACE, digests(0, 1, 2, 3, 4))
    assert rows.dtype == F16
    np.testing.assert_array_equal(rows, values)


def test_a_space_keeps_its_shape_and_dtype(tmp_path: Path) -> None:
    put(tmp_path, [1])
    with pytest.raises(ValueError, match="holds rows"):
        FeatureStore(tmp_path).writer(SPACE, (65,), F32, ENGINE)
    with pytest.raises(ValueError, match="float16 and float32"):
        FeatureStore(tmp_path).writer(SPACE, (64,), np.dtype(np.int64), ENGINE)
    with (
        FeatureStore(tmp_path).writer(SPACE, (64,), F32, ENGINE) as writer,
        pytest.raises(ValueError, match="expected"),
    ):
        writer.append(digests(2), rows_of([2], 63))


@pytest.mark.parametrize("dtype", [F16, F32])
def test_finite_rows_by_their_bits(dtype: np.dtype[np.floating]) -> None:
    least, most = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    values = np.array([0.0, -0.0, least, -least, most, -most, np.inf, -np.inf, np.nan, -np.nan], dtype)
    assert finite_rows(values).tolist() == np.isfinite(values).tolist()
    rows = np.repeat(values[:, None], 40, axis=1).reshape(10, 5, 8)
    rows[:, 1:] = 1
    assert finite_rows(rows).tolist() == np.isfinite(values).tolist()
    assert finite_rows(rows[:0]).shape == (0,)


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf, 1e6])
def test_rows_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    rows = rows_of([1, 2, 3], 4)
    rows[1, 2] = value  # 1e6 is no float16
    with FeatureStore(tmp_path).writer(SPACE, (4,), F16, ENGINE) as writer:
        with pytest.raises(UserError, match=f"not finite in float16.*md5 {digest(2)}; "):
            writer.append(digests(1, 2, 3), rows)
        writer.append(digests(1), rows[:1])
    assert FeatureStore(tmp_path).present(SPACE, digests(1, 2, 3)).tolist() == [True, False, False]


def test_a_reader_sees_what_others_append(tmp_path: Path) -> None:
    reader = FeatureStore(tmp_path)
    assert not reader.present(SPACE, digests(1)).any()
    with FeatureStore(tmp_path).writer(SPACE, (64,), F32, ENGINE) as one:
        one.append(digests(1), rows_of([1]))
        assert reader.present(SPACE, digests(1, 2)).tolist() == [True, False]
        put(tmp_path, [2])
        one.append(digests(3), rows_of([3]))
        np.testing.assert_array_equal(reader.read(SPACE, digests(3, 2, 1))[0], rows_of([3, 2, 1]))


@pytest.mark.parametrize("scattered", [0.0, 0.02, 0.2, 1.0])
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_however_rows_lie_they_are_read(tmp_path: Path, scattered: float, share: float) -> None:
    for first in range(0, 900, 300):
        put(tmp_path, range(first, first + 300))
    rng = np.random.default_rng(0)
    order = np.arange(900)[: int(share * 900)]
    moved = rng.random(len(order)) < scattered
    order[moved] = rng.integers(0, 900, moved.sum())
    rows, _ = FeatureStore(tmp_path).read(SPACE, digests(*order.tolist()))
    np.testing.assert_array_equal(rows, rows_of(order.tolist()))


def test_many_small_shards(tmp_path: Path) -> None:
    for number in range(150):
        put(tmp_path, [number])
    order = list(range(150))
    random.Random(0).shuffle(order)
    np.testing.assert_array_equal(FeatureStore(tmp_path).read(SPACE, digests(*order))[0], rows_of(order))


def test_the_eldest_of_two_rows_wins(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        with FeatureStore(tmp_path).writer(SPACE, (2,), F32, ENGINE) as writer:
            writer.append(digests(5), np.full((1, 2), value, F32))
    assert FeatureStore(tmp_path).read(SPACE, digests(5))[0].tolist() == [[1.0, 1.0]]
    assert FeatureStore(tmp_path).info()[0].rows == 1


def test_a_torn_tail_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, range(4))
    index, rows = only(tmp_path, ".index"), only(tmp_path, ".rows")
    whole = index.read_bytes()
    for cut in range(1, RECORD.itemsize + 1):
        index.write_bytes(whole[:-cut])
        store = FeatureStore(tmp_path)
        assert store.present(SPACE, digests(0, 1, 2, 3)).tolist() == [True, True, True, False]
        assert store.verify() == []
    index.write_bytes(whole)
    rows.write_bytes(rows.read_bytes()[:-1])  # can't happen while rows are synced first, and does no harm
    assert FeatureStore(tmp_path).present(SPACE, digests(2, 3)).tolist() == [True, False]
    assert "1 damaged records" in FeatureStore(tmp_path).verify()[0]


def test_a_flipped_byte_is_found_and_healed(tmp_path: Path) -> None:
    put(tmp_path, range(4))
    path = only(tmp_path, ".rows")
    data = bytearray(path.read_bytes())
    data[2 * 256 + 10] ^= 1
    path.write_bytes(data)
    store = FeatureStore(tmp_path)
    with pytest.raises(MissingRows) as caught:
        store.read(SPACE, digests(0, 1, 2, 3))
    assert caught.value.digests == (digest(2),)
    assert not store.present(SPACE, digests(2)).any()
    assert [fault for fault in store.verify() if f"byte 512, of the sample with md5 {digest(2)}, is damaged" in fault]

    put(tmp_path, [2])
    for reader in (store, FeatureStore(tmp_path)):
        np.testing.assert_array_equal(reader.read(SPACE, digests(3, 2))[0], rows_of([3, 2]))


def test_a_flipped_byte_in_the_index_hides_one_row(tmp_path: Path) -> None:
    put(tmp_path, range(4))
    path = only(tmp_path, ".index")
    whole = path.read_bytes()
    for at in range(RECORD.itemsize, 2 * RECORD.itemsize):
        data = bytearray(whole)
        data[at] ^= 0x10
        path.write_bytes(data)
        assert FeatureStore(tmp_path).present(SPACE, digests(0, 1, 2, 3)).tolist() == [True, False, True, True]
    assert "1 damaged records" in FeatureStore(tmp_path).verify()[0]


def test_a_store_deleted_under_a_reader_is_empty(tmp_path: Path) -> None:
    put(tmp_path, [1])
    put(tmp_path, [2])
    store = FeatureStore(tmp_path)
    assert store.present(SPACE, digests(1, 2)).all()
    for path in sorted(tmp_path.glob("v2/*-*-*/*"))[:3]:  # the elder shard
        path.unlink()
    assert store.present(SPACE, digests(1, 2)).tolist() == [False, True]
    for path in tmp_path.glob("v2/*-*-*/*"):
        path.unlink()
    SPACE.folder(tmp_path).rmdir()
    assert not store.present(SPACE, digests(1, 2)).any()


def test_space_json_is_checked(tmp_path: Path) -> None:
    put(tmp_path, [1])
    path = only(tmp_path, "space.json")
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "format_version": 99}))
    with pytest.raises(FormatError, match=r"is of format version 99, this tl reads up to 2; upgrade tl"):
        FeatureStore(tmp_path).present(SPACE, digests(1))
    with pytest.raises(FormatError, match="99"):
        FeatureStore(tmp_path).writer(SPACE, (64,), F32, ENGINE)
    for text in ("", "{}", "[]", '{"format_version": 1}', json.dumps({**facts, "dtype": "|O"})):
        path.write_text(text)
        with pytest.raises(FormatError, match="is damaged; delete"):
            FeatureStore(tmp_path).present(SPACE, digests(1))
        assert "is damaged; delete" in FeatureStore(tmp_path).verify()[0]
    path.unlink()
    assert "has lost its space.json" in FeatureStore(tmp_path).verify()[0]


def test_info(tmp_path: Path) -> None:
    assert FeatureStore(tmp_path / "nowhere").info() == []
    put(tmp_path, range(5))
    with FeatureStore(tmp_path).writer(SPACE, (64,), F32, "torch-2.0-cuda") as writer:
        writer.append(digests(5), rows_of([5]))
    size = sum(path.stat().st_size for path in SPACE.folder(tmp_path).iterdir())
    assert FeatureStore(tmp_path).info() == [
        SpaceInfo(SPACE, rows=6, bytes=size, shape=(64,), dtype="float32", engines=(ENGINE, "torch-2.0-cuda"))
    ]


def test_a_writer_that_writes_nothing_leaves_no_shard(tmp_path: Path) -> None:
    with FeatureStore(tmp_path).writer(SPACE, (64,), F32, ENGINE) as writer:
        writer.append([], np.zeros((0, 64), F32))
    assert [path.name for path in SPACE.folder(tmp_path).iterdir()] == ["space.json"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't write the feature store at .*; set store.path to a folder"):
        FeatureStore(tmp_path / "file" / "store").writer(SPACE, (64,), F32, ENGINE)
