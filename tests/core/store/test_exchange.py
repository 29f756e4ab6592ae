"""Features move between stores in one file, whole or not at all, and nothing in the file is taken on trust."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tl_core.errors import FormatError, UserError
from tl_core.store import ExportResult, FeatureStore, ImportResult, MissingRows, Space

from .cases import ENGINE, F32, RAGGED, SPACE, digest, digests, only, put, put_tokens, rows_of, tokens


@pytest.fixture
def there(tmp_path: Path) -> FeatureStore:
    """A store that holds 40 fixed rows of two engines and 10 ragged ones."""
    put(tmp_path / "there", range(30), flags=np.arange(30, dtype=np.uint8) % 2)
    put(tmp_path / "there", range(30, 40), engine="torch-2.0-cuda")
    put_tokens(tmp_path / "there", range(10))
    return FeatureStore(tmp_path / "there")


@pytest.fixture
def here(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "here")


def tampered(path: Path, change: Callable[[dict[str, Any], dict[str, list[Any]]], None]) -> None:
    """Change what an exported file says: its description and its columns."""
    table = pa.ipc.open_file(path).read_all()
    about = json.loads(table.schema.metadata[b"tl_features"])
    columns = table.to_pydict()
    change(about, columns)
    schema = table.schema.with_metadata({b"tl_features": json.dumps(about).encode()})
    with path.open("wb") as stream, pa.ipc.new_file(stream, schema) as writer:
        writer.write_table(pa.table(columns, schema=schema))


def files(store: FeatureStore) -> list[Path]:
    return sorted(path for path in store.root.rglob("*") if path.is_file())


def test_rows_of_two_spaces_move(tmp_path: Path, there: FeatureStore, here: FeatureStore) -> None:
    path = tmp_path / "features.arrow"
    exported = there.export(path, [(SPACE, digests(5, 35, 5, 6)), (RAGGED, None)])
    assert exported == ExportResult(rows=13, bytes=path.stat().st_size)
    put(here.root, [6])
    assert here.import_(path) == ImportResult(added=12, present=1)
    np.testing.assert_array_equal(here.read(SPACE, digests(35, 6, 5))[0], rows_of([35, 6, 5]))
    assert here.flags(SPACE, digests(5, 6, 35)).tolist() == [1, 0, 0]
    assert not here.present(SPACE, digests(7)).any()
    for n, row in enumerate(here.read_ragged(RAGGED, digests(*range(10)))[0]):
        np.testing.assert_array_equal(row["0.x"], tokens(n)["0.x"])
    assert here.info()[1].engines == (ENGINE, "torch-2.0-cuda")
    assert here.verify() == []
    assert here.import_(path) == ImportResult(added=0, present=13)


def test_rows_of_a_new_engine_that_come_meanwhile(
    tmp_path: Path, there: FeatureStore, here: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = there.digests

    def late(space: Space) -> list[str]:
        put(there.root, [99], engine="openvino-2-cpu")
        return find(space)

    monkeypatch.setattr(there, "digests", late)
    assert there.export(tmp_path / "features.arrow", [(SPACE, None)]).rows == 41
    assert here.import_(tmp_path / "features.arrow").added == 41


def test_the_file_depends_on_the_rows_alone(tmp_path: Path, there: FeatureStore) -> None:
    there.export(tmp_path / "one", [(SPACE, None)])
    there.gc()
    FeatureStore(there.root).export(tmp_path / "two", [(SPACE, digests(*reversed(range(40))))])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_file_is_a_table(tmp_path: Path, there: FeatureStore) -> None:
    with there.writer(Space("cd" * 32, "end", "float32"), (2,), F32, "engine", {"timm": "1.0.9"}) as writer:
        writer.append(digests(1), rows_of([1], 2))
    there.export(tmp_path / "file", [(SPACE, digests(1)), (Space("cd" * 32, "end", "float32"), None)])
    table = pa.ipc.open_file(tmp_path / "file").read_all()
    assert table.to_pylist()[1] == {
        "space": 1,
        "digest": bytes.fromhex(digest(1)),
        "row": np.ones(2, "<f4").tobytes(),
        "crc": table["crc"][1].as_py(),
        "flags": 0,
        "engine": 0,
    }
    about = json.loads(table.schema.metadata[b"tl_features"])
    assert [space["fingerprint"][:2] for space in about["spaces"]] == ["ab", "cd"]
    assert about["engines"][0] == {"engine": "engine", "made": {"timm": "1.0.9"}}


def test_many_batches(tmp_path: Path, there: FeatureStore, here: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tl_core.store.reading.CHUNK", 1000)
    there.export(tmp_path / "file", [(SPACE, None), (RAGGED, None)])
    assert pa.ipc.open_file(tmp_path / "file").num_record_batches > 15
    assert here.import_(tmp_path / "file").added == 50


def test_what_can_not_be_exported(tmp_path: Path, there: FeatureStore) -> None:
    path = tmp_path / "file"
    path.write_text("of before")
    with pytest.raises(MissingRows) as caught:
        there.export(path, [(SPACE, digests(1, 99))])
    assert caught.value.digests == (digest(99),)
    with pytest.raises(UserError, match=r"has no features of backbone abababababababab at pool in float32; `tl cache"):
        there.export(path, [(Space("ab" * 32, "pool", "float32"), None)])
    with pytest.raises(UserError, match=r"can't write .*nowhere/file: No such file or directory; name a file"):
        there.export(tmp_path / "nowhere" / "file", [(SPACE, None)])
    assert path.read_text() == "of before"
    assert [p.name for p in tmp_path.iterdir() if "file" in p.name] == ["file"]


def test_damaged_rows_are_left_out_of_all_and_missed_where_asked(tmp_path: Path, there: FeatureStore) -> None:
    path = only(there.root, ".rows", RAGGED)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    result = there.export(tmp_path / "file", [(RAGGED, None)])
    assert (result.rows, result.damaged) == (9, (digest(9),))
    with pytest.raises(MissingRows):
        FeatureStore(there.root).export(tmp_path / "file", [(RAGGED, digests(9, 1))])


def test_damaged_rows_are_refused_and_named(tmp_path: Path, there: FeatureStore, here: FeatureStore) -> None:
    def change(about: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        rows, crcs = columns["row"], columns["crc"]
        rows[0] = bytes(len(rows[0]))
        rows[1] = rows[1][:-4]
        rows[2], crcs[2] = b"", 0  # its checksum is right
        rows[3] = np.full(64, np.nan, "<f4").tobytes()
        crcs[3] = zlib.crc32(rows[3])
        rows[40], crcs[40] = b"no safetensors", zlib.crc32(b"no safetensors")

    path = tmp_path / "file"
    there.export(path, [(SPACE, None), (RAGGED, None)])
    tampered(path, change)
    names = [value.hex() for value in pa.ipc.open_file(path).read_all()["digest"].to_pylist()]
    result = here.import_(path)
    assert (result.added, result.present) == (45, 0)
    assert sorted(result.damaged) == sorted([*names[:4], names[40]])
    assert not here.present(SPACE, names[:4]).any()
    assert here.verify() == []


def test_files_cut_off_anywhere(tmp_path: Path, there: FeatureStore, here: FeatureStore) -> None:
    there.export(tmp_path / "whole", [(SPACE, None)])
    data, path = (tmp_path / "whole").read_bytes(), tmp_path / "file"
    for length in [*range(0, 60, 7), *range(60, len(data), len(data) // 40), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"is no file of exported features, or was cut off") as caught:
            here.import_(path)
        assert "\n" not in str(caught.value)
    assert not here.root.exists()


def test_flipped_bytes_anywhere(tmp_path: Path, there: FeatureStore, here: FeatureStore) -> None:
    """Whatever a flipped byte does to the file, what is stored are rows of the store that it came from."""
    there.export(tmp_path / "whole", [(SPACE, digests(*range(8)))])
    data, path = (tmp_path / "whole").read_bytes(), tmp_path / "file"
    rng = np.random.default_rng(0)
    for at in [*range(0, 1500, 11), *rng.integers(1500, len(data), 150).tolist()]:
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            here.import_(path)
        except UserError:
            continue
    stored = here.digests(SPACE) if SPACE.folder(here.root).exists() else []
    known = {digest(n): n for n in range(8)}
    for name, row in zip(stored, here.read(SPACE, stored)[0]):
        if name in known:  # a digest that was hit itself is one that nobody asks for
            assert row.tolist() == [known[name]] * 64
    assert here.verify() == []


@pytest.mark.parametrize(
    "change",
    [
        lambda about, columns: about["spaces"][0].update(cut="../../evil"),
        lambda about, columns: about["spaces"][0].update(fingerprint="/etc"),
        lambda about, columns: about["spaces"][0].update(dtype="|O"),
        lambda about, columns: about["spaces"][0].update(shape=[-1]),
        lambda about, columns: about.update(spaces={}),
        lambda about, columns: about["spaces"].append({**about["spaces"][0], "shape": [3]}),
        lambda about, columns: about.update(engines=[{"engine": "x"}]),
        lambda about, columns: about.pop("format_version"),
        lambda about, columns: columns["space"].__setitem__(0, 7),
        lambda about, columns: columns["engine"].__setitem__(0, -1),
    ],
)
def test_what_the_file_says_is_checked(
    tmp_path: Path, there: FeatureStore, here: FeatureStore, change: Callable[[Any, Any], None]
) -> None:
    there.export(tmp_path / "file", [(SPACE, None)])
    tampered(tmp_path / "file", change)
    with pytest.raises(UserError, match="is no file of exported features"):
        here.import_(tmp_path / "file")
    assert not here.root.exists()


def test_files_that_do_not_fit(tmp_path: Path, there: FeatureStore, here: FeatureStore) -> None:
    path = tmp_path / "file"
    there.export(path, [(SPACE, None), (RAGGED, None)])
    with pytest.raises(UserError, match=r"nothing is not there; name a file that `tl cache export` wrote"):
        here.import_(tmp_path / "nothing")
    with here.writer(SPACE, (65,), F32, ENGINE) as writer:
        writer.append(digests(1), rows_of([1], 65))
    before = files(here)
    with pytest.raises(UserError, match=r"rows of float32 \(64,\), the store's .* those of float32 \(65,\); set store"):
        here.import_(path)
    assert files(here) == before
    with FeatureStore(tmp_path / "ragged").ragged_writer(SPACE, F32, ENGINE), pytest.raises(UserError, match="ragged"):
        FeatureStore(tmp_path / "ragged").import_(path)

    tampered(path, lambda about, columns: about.update(format_version=9))
    with pytest.raises(FormatError, match=r"is of format version 9, this tl reads up to 1; upgrade tl here"):
        here.import_(path)
    table = pa.table({"digest": [b"0" * 16]})
    with path.open("wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match="is no file of exported features"):
        here.import_(path)


LIMITED = """
import resource, sys
from pathlib import Path
from tl_core.store import FeatureStore, Space
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
space = Space("ab" * 32, "end", "float32")
try:
    if sys.argv[1] == "export":
        FeatureStore(Path(sys.argv[2])).export(Path(sys.argv[3]), [(space, None)])
    else:
        FeatureStore(Path(sys.argv[2])).import_(Path(sys.argv[3]))
except Exception as error:
    print(type(error).__name__, error)
"""


def limited(*args: object) -> str:
    done = subprocess.run([sys.executable, "-c", LIMITED, *map(str, args)], capture_output=True, text=True)
    assert not done.stderr
    return done.stdout


def test_full_disks(tmp_path: Path, there: FeatureStore, here: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    assert f"UserError the disk of {path} is full: 0.0 of 0.0 MB did not fit, and nothing is left" in limited(
        "export", there.root, path
    )
    assert not [p for p in tmp_path.iterdir() if "file" in p.name]
    monkeypatch.setattr("tl_core.store.reading.CHUNK", 1000)
    there.export(path, [(SPACE, None)])
    message = limited("import", here.root, path)
    assert "StoreFull" in message
    stored = len(here.digests(SPACE))
    assert f"{stored} rows were stored, {40 - stored} are missing" in message
    assert stored > 10
    assert here.verify() == []
    assert here.import_(path) == ImportResult(added=40 - stored, present=stored)


def test_a_digest_or_a_flag_that_changed_on_the_way(tmp_path: Path, there: FeatureStore, here: FeatureStore) -> None:
    path = tmp_path / "features.arrow"
    there.export(path, [(SPACE, digests(5, 6, 7))])

    def change(_: dict[str, Any], columns: dict[str, list[Any]]) -> None:
        columns["digest"][0] = bytes([columns["digest"][0][0] ^ 1]) + columns["digest"][0][1:]
        columns["flags"][1] ^= 1

    tampered(path, change)
    done = here.import_(path)
    assert (done.added, len(done.damaged)) == (1, 2)
