"""The index: records that check themselves, keys that are found, among many and among few."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tl_core.store.index import SpaceIndex
from tl_core.store.shards import RECORD, new_records, record_checks, shard_sizes

NO_FLAGS = np.zeros(1, np.uint8)


def shard(folder: Path, name: str, keys: list[bytes], flag: int = 0) -> None:
    n = len(keys)
    records = new_records(np.array(keys, "S16"), np.full(n, 4), np.zeros(n, np.uint32), np.full(n, flag, np.uint8), 0)
    with (folder / f"{name}.index").open("ab") as index, (folder / f"{name}.rows").open("ab") as rows:
        rows.write(bytes(4 * n))
        index.write(records.tobytes())


def index_of(folder: Path) -> SpaceIndex:
    index = SpaceIndex(folder, None)
    index.refresh()
    return index


def test_any_changed_byte_of_a_record_shows() -> None:
    key = np.array([bytes(range(1, 17))], "S16")
    for record in (
        new_records(key, np.array([1536]), np.array([0xDEADBEEF], np.uint32), NO_FLAGS, 10**12),
        new_records(np.array([b""], "S16"), np.array([0]), np.array([0], np.uint32), NO_FLAGS, 0),
    ):
        whole = np.frombuffer(record.tobytes(), np.uint8)
        changed = np.repeat(whole[None], RECORD.itemsize * 255, axis=0)  # every byte, to every other value
        at = np.repeat(np.arange(RECORD.itemsize), 255)
        changed[np.arange(len(changed)), at] ^= np.tile(np.arange(1, 256, dtype=np.uint8), RECORD.itemsize)
        records = np.frombuffer(changed.tobytes(), RECORD)
        assert not (record_checks(records) == records["check"]).any()
    zeros = np.zeros(1, RECORD)
    assert record_checks(zeros) != zeros["check"]  # a hole that a power cut leaves


def test_keys_that_share_half_their_bytes(tmp_path: Path) -> None:
    keys = [b"12345678" + bytes([n]) * 8 for n in range(1, 50)]
    shard(tmp_path, "a", keys[::-1])
    index = index_of(tmp_path)
    at = index.find(np.array([keys[7], b"12345678abcdefgh", keys[48], b"12345679" + keys[3][8:]], "S16"))
    assert (at >= 0).tolist() == [True, False, True, False]
    assert index.records["key"][at[[0, 2]]].tolist() == [keys[7], keys[48]]
    assert len(index.distinct()[0]) == 49


def test_the_eldest_shard_wins_however_records_came_in(tmp_path: Path) -> None:
    keys = [bytes([n]) * 16 for n in range(1, 40)]
    late, early = SpaceIndex(tmp_path, None), SpaceIndex(tmp_path, None)
    for name, flag in (("b", 2), ("c", 3), ("a", 1)):
        shard(tmp_path, name, keys[flag:], flag)
        late.refresh()
    early.refresh()
    for index in (late, early):
        at = index.find(np.array(keys, "S16"))
        assert at[0] == -1
        assert index.records["flags"][at[1:]].tolist() == [1] * 38
        positions, copies = index.distinct()
        assert index.records["flags"][positions].tolist() == [1] * 38
        assert copies.tolist() == [1, 2] + [3] * 36
        index.forget(at[1:])
        again = index.find(np.array(keys, "S16"))
        assert index.records["flags"][again[2:]].tolist() == [2] * 37


def test_many_small_additions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    keys = [rng.bytes(16) for _ in range(600)]
    index = SpaceIndex(tmp_path, None)
    for start in range(0, 600, 3):
        shard(tmp_path, "ab"[start % 2], keys[start : start + 3])
        index.refresh()
        assert (index.find(np.array(keys, "S16")) >= 0).sum() == start + 3
    found = index.records["key"][index.find(np.array(keys, "S16"))]
    assert found.tolist() == np.array(keys, "S16").tolist()
    assert len(index._runs) < 12


def test_a_listing_that_changes_under_way_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard(tmp_path, "old", [b"k" * 16])
    import os

    scandir = os.scandir

    def merged_meanwhile(folder: Path) -> object:
        monkeypatch.setattr(os, "scandir", scandir)
        entries = scandir(folder)
        (tmp_path / "new.index").write_bytes((tmp_path / "old.index").read_bytes())
        (tmp_path / "old.index").unlink()
        os.utime(tmp_path, ns=(1, 1))  # clocks are coarse
        return entries

    monkeypatch.setattr(os, "scandir", merged_meanwhile)
    assert shard_sizes(tmp_path) == {"new": 1}
