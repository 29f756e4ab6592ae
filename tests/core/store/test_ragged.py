"""Ragged rows: named arrays of any shapes, a safetensors blob each."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from tl_core.errors import FormatError, UserError
from tl_core.store import FeatureStore, MissingRows, SpaceInfo

from .cases import ENGINE, F16, F32, RAGGED, SPACE, digest, digests, only, put, put_tokens, tokens


def assert_tokens(found: list[dict[str, np.ndarray]], numbers: list[int]) -> None:
    assert len(found) == len(numbers)
    for row, number in zip(found, numbers):
        assert row.keys() == tokens(number).keys()
        for name, array in tokens(number).items():
            assert row[name].dtype == array.dtype
            np.testing.assert_array_equal(row[name], array)


def test_ragged_rows_come_back_in_the_order_asked(tmp_path: Path) -> None:
    put_tokens(tmp_path, range(0, 30))
    put_tokens(tmp_path, range(30, 50))
    order = list(range(50))
    random.Random(0).shuffle(order)
    store = FeatureStore(tmp_path)
    found, flags = store.read_ragged(RAGGED, digests(*order, 7, 7))
    assert_tokens(found, [*order, 7, 7])
    assert flags.tolist() == [0] * 52
    assert store.read_ragged(RAGGED, [])[0] == []
    assert store.present(RAGGED, digests(49, 50)).tolist() == [True, False]
    with pytest.raises(MissingRows) as caught:
        store.read_ragged(RAGGED, digests(3, 50))
    assert caught.value.digests == (digest(50),)
    with pytest.raises(MissingRows):
        store.read_ragged(SPACE, digests(3))


def test_floats_are_cast_and_integers_kept(tmp_path: Path) -> None:
    row = {
        "1.x": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
        "0.x": np.zeros((0, 4), np.float64),
        "ids": np.array([2**40, -1]),
        "mask": np.array([True, False]),
        "scale": np.array(0.5, np.float16),
    }
    with FeatureStore(tmp_path).ragged_writer(RAGGED, F16, ENGINE) as writer:
        writer.append(digests(1), [row], np.array([1], np.uint8))
    (found,), flags = FeatureStore(tmp_path).read_ragged(RAGGED, digests(1))
    assert flags.tolist() == [1]
    assert {name: (array.dtype.name, array.shape) for name, array in found.items()} == {
        "1.x": ("float16", (3, 2)),
        "0.x": ("float16", (0, 4)),
        "ids": ("int64", (2,)),
        "mask": ("bool", (2,)),
        "scale": ("float16", ()),
    }
    for name, array in row.items():
        np.testing.assert_array_equal(found[name], array)
        found[name][...] = 0  # the caller's own
    blob = only(tmp_path, ".rows", RAGGED).read_bytes()
    assert load(blob).keys() == row.keys()


def test_what_ragged_rows_may_not_be(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    with store.ragged_writer(RAGGED, F16, ENGINE) as writer:
        rows = [tokens(1), {"0.x": np.array([1.0, 1e6])}, tokens(3)]
        with pytest.raises(UserError, match=f"not finite in float16.*md5 {digest(2)}; "):
            writer.append(digests(1, 2, 3), rows)
        assert not store.present(RAGGED, digests(1, 2, 3)).any()
        with pytest.raises(ValueError, match="1 rows for 2 digests"):
            writer.append(digests(1, 2), rows[:1])
        with pytest.raises(ValueError, match="array 'name' of <U1; ragged rows take"):
            writer.append(digests(1), [{"name": np.array(["a"])}])
    with pytest.raises(ValueError, match="float16 and float32"):
        store.ragged_writer(RAGGED, np.dtype(np.float64), ENGINE)


def test_fixed_and_ragged_spaces_are_told_apart(tmp_path: Path) -> None:
    put(tmp_path, [1])
    put_tokens(tmp_path, [1])
    store = FeatureStore(tmp_path)
    with pytest.raises(ValueError, match=r"ragged rows; read_ragged\(\)"):
        store.read(RAGGED, digests(1))
    with pytest.raises(ValueError, match=r"shape \(64,\); read\(\)"):
        store.read_ragged(SPACE, digests(1))
    with pytest.raises(ValueError, match="holds rows"):
        store.writer(RAGGED, (64,), F16, ENGINE)
    with pytest.raises(ValueError, match="holds rows"):
        store.ragged_writer(SPACE, F32, ENGINE)
    ragged, fixed = store.info()
    assert isinstance(ragged, SpaceInfo)
    assert (ragged.space, ragged.ragged, ragged.rows, ragged.shape, ragged.dtype) == (RAGGED, True, 1, (), "float16")
    assert (fixed.space, fixed.ragged) == (SPACE, False)


def test_a_flipped_byte_in_a_ragged_row_is_found_and_healed(tmp_path: Path) -> None:
    put_tokens(tmp_path, range(4))
    path = only(tmp_path, ".rows", RAGGED)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    store = FeatureStore(tmp_path)
    checked: list[int] = []
    assert f"of the sample with md5 {digest(3)}, is damaged" in store.verify(checked.append)[0]
    assert sum(checked) == 4
    with pytest.raises(MissingRows) as caught:
        store.read_ragged(RAGGED, digests(0, 1, 2, 3))
    assert caught.value.digests == (digest(3),)
    put_tokens(tmp_path, [3])
    for reader in (store, FeatureStore(tmp_path)):
        assert_tokens(reader.read_ragged(RAGGED, digests(3, 2))[0], [3, 2])


def test_a_row_cut_off_at_the_end_of_the_file(tmp_path: Path) -> None:
    put_tokens(tmp_path, range(4))
    path = only(tmp_path, ".rows", RAGGED)
    path.write_bytes(path.read_bytes()[:-1])
    assert FeatureStore(tmp_path).present(RAGGED, digests(0, 1, 2, 3)).tolist() == [True, True, True, False]
    assert "1 damaged records" in FeatureStore(tmp_path).verify()[0]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        put_tokens(tmp_path / name, range(9))
    one, two = (only(tmp_path / name, ".rows", RAGGED).read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_ragged_space_of_a_damaged_header(tmp_path: Path) -> None:
    put_tokens(tmp_path, [1])
    only(tmp_path, "space.json", RAGGED).write_text('{"format_version": 2, "ragged": true}')
    with pytest.raises(FormatError, match="is damaged; delete"):
        FeatureStore(tmp_path).present(RAGGED, digests(1))
