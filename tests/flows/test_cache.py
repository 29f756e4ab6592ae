"""`tl cache`: what it shows, what it refuses, and features that go from one store to another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tl_flows import cli
from tl_flows.commands.cache import Size

from tl_core.config import RunConfig
from tl_core.digests import text_digest
from tl_core.manifest import scan
from tl_core.registry import load_registry
from tl_core.store import FeatureStore, Space
from tl_core.workspace import Workspace, write_json

TINY = Space("a" * 64, "end", "bfloat16")
TWIN = Space("b" * 64, "end", "bfloat16")
INNER = Space("a" * 64, "layer4", "float32")


def digests(*numbers: int) -> list[str]:
    return [text_digest(str(number)) for number in numbers]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with three spaces, and a run folder whose receipt names the backbone."""
    monkeypatch.chdir(tmp_path)
    features = FeatureStore(tmp_path / "store")
    for space, rows in ((TINY, 5), (TWIN, 5)):
        with features.writer(space, (4,), np.dtype(np.float16), "openvino-2026.4.1-cpu") as writer:
            writer.append(digests(*range(rows)), np.ones((rows, 4), np.float32))
    with features.ragged_writer(INNER, np.dtype(np.float32), "torch-2.14.1-cpu") as writer:
        writer.append(digests(0), [{"0.x": np.ones((3, 2), np.float32)}])
    features.mark_used(TINY, "v1", digests(0, 1))
    receipt = {
        "backbone": {"name": "resnet18", "weights": "c" * 64, "fingerprint": TINY.fingerprint},
        "random": {"name": "resnet18", "weights": "random-" + "c" * 64, "fingerprint": TWIN.fingerprint},
    }
    folder = tmp_path / "tl-run" / "artifacts" / "extract"
    folder.mkdir(parents=True)
    (folder / "receipt.json").write_text(json.dumps(receipt))
    return tmp_path / "store"


def tl(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> list[str]:
    """The command's lines, with runs of spaces as one."""
    assert cli.main(["cache", *map(str, arguments)]) == code
    out, err = capsys.readouterr()
    return [" ".join(line.split()) for line in (out or err).splitlines()]


def test_info_names_backbones_and_says_what_there_is(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = store / "engines" / "aaaaaaaaaaaaaaaa-end-2026"
    model.mkdir(parents=True)
    meta = {"fingerprint": TINY.fingerprint, "cut": "end", "version": "openvino-2026.4.1", "refused": {}}
    (model / "meta.json").write_text(json.dumps(meta))
    (model / "model.bin").write_bytes(b"0" * 2_000_000)
    lines = tl(capsys, "info", "--store", store)
    assert lines[0] == "backbone cut precision rows shape MB engines last used"
    assert lines[1].startswith("resnet18 end bfloat16 5 4 0.0 openvino-2026.4.1-cpu 20")
    assert lines[2] == "resnet18 layer4 float32 1 ragged 0.0 torch-2.14.1-cpu"
    assert lines[3] == "resnet18, random weights end bfloat16 5 4 0.0 openvino-2026.4.1-cpu"
    assert lines[5:7] == ["converted model cut engine MB", "resnet18 end openvino-2026.4.1 2.0"]
    assert lines[7] == f"{store}: 11 rows, 0.0 MB; converted models 2.0 MB"


def test_info_finds_the_users_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (line,) = tl(capsys, "info")
    assert line.endswith("/tl/store: 0 rows, 0.0 MB")
    assert tl(capsys, "info", "--store", "nowhere", code=2)[0].startswith("tl: no such feature store: nowhere; ")


def test_verify_counts_rows_and_tells_every_fault(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tl(capsys, "verify", "--store", store) == [f"{store}: 11 rows checked, all whole"]
    rows = next((TINY.folder(store)).glob("*.rows"))
    data = bytearray(rows.read_bytes())
    data[8] ^= 1  # of the second row
    rows.write_bytes(data)
    fault, last = tl(capsys, "verify", "--store", store, code=1)
    assert digests(1)[0] in fault
    assert last == f"{store}: 11 rows checked, 1 fault"


def test_gc_is_refused_where_nothing_says_what_may_go(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = tl(capsys, "gc", "--store", store, code=2)
    assert line.startswith("tl: nothing says what may go; give --keep-last N")


def test_gc_drops_what_the_last_versions_of_the_data_did_not_use(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    would = tl(capsys, "gc", "--keep-last", 1, "--dry-run", "--store", store)
    assert "would go: all 5 rows of resnet18, random weights, end, bfloat16" in would
    assert would[-2].startswith("would go in all: 9 rows, ")
    assert would[-1].startswith("would stay: 2 rows, ")
    assert len(FeatureStore(store).info()) == 3
    gone = tl(capsys, "gc", "--keep-last", 1, "--store", store)
    assert gone[-2].startswith("gone in all: 9 rows, ")
    assert FeatureStore(store).present(TINY, digests(0, 1, 2)).tolist() == [True, True, False]


def test_gc_keeps_the_store_below_a_size(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tl(capsys, "gc", "--max-size", "1GB", "--store", store)[-1].startswith("kept: 11 rows, ")
    assert tl(capsys, "gc", "--max-size", "0", "--store", store)[-1].startswith("kept: 0 rows, ")


@pytest.fixture
def run_folder(store: Path, tmp_path: Path) -> Path:
    """The run folder with a manifest of the data that the store's rows are of."""
    (tmp_path / "data.csv").write_text("text,label\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(12)))
    manifest = scan(tmp_path / "data.csv", RunConfig(), load_registry().loaders(), base=tmp_path, progress=False)
    folder = tmp_path / "tl-run"
    workspace = Workspace(folder, store, folder)
    manifest.save(workspace.manifest)
    receipt = json.loads(workspace.receipt.read_text())
    for role in receipt.values():
        role["cut"] = "end"
    write_json(workspace.receipt, {**receipt, "data_version": manifest.data_version, "precision": "bfloat16"})
    return folder


def test_a_runs_features_go_to_another_store(
    store: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = tl(capsys, "export", "f.arrow", "--store", store, code=2)
    assert line.startswith(f"tl: 7 features of this run are not in {store}; run `tl extract`")
    for space in (TINY, TWIN):
        with FeatureStore(store).writer(space, (4,), np.dtype(np.float16), "torch-2.14.1-cpu") as writer:
            writer.append(digests(*range(5, 13)), np.zeros((8, 4), np.float32))
    (line,) = tl(capsys, "export", "f.arrow", "--store", store, "--out", run_folder)
    assert line.startswith("f.arrow: 24 rows, ")
    assert line.endswith("; on the other machine: tl cache import f.arrow")
    assert tl(capsys, "import", "f.arrow", "--store", "other") == ["f.arrow: 24 rows added, 0 were there already"]
    assert tl(capsys, "import", "f.arrow", "--store", "other") == ["f.arrow: 0 rows added, 24 were there already"]
    rows, other = (FeatureStore(root).read(TINY, digests(*range(12)))[0] for root in (store, tmp_path / "other"))
    assert rows.tobytes() == other.tobytes()
    assert not FeatureStore(tmp_path / "other").present(TINY, digests(12)).any()  # no row of this version of the data


def test_the_whole_store_goes_where_all_of_it_is_asked_for(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tl(capsys, "export", "all.arrow", "--all", "--store", store)[0].startswith("all.arrow: 11 rows, ")
    assert tl(capsys, "import", "all.arrow", "--store", "other") == ["all.arrow: 11 rows added, 0 were there already"]
    assert len(FeatureStore(Path("other")).info()) == 3


def test_what_can_not_be_exported_is_said(
    store: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tl(capsys, "export", "f", "--out", "none", code=2)[0].startswith("tl: no features of a run here: ")
    assert tl(capsys, "export", "f", "--out", run_folder, "--all", code=2)[0].startswith("tl: --all exports the whole")
    receipt = run_folder / "artifacts" / "extract" / "receipt.json"
    receipt.write_text(json.dumps({**json.loads(receipt.read_text()), "data_version": "older"}))
    (line,) = tl(capsys, "export", "f", "--store", store, code=2)
    assert line == f"tl: {receipt} is of another version of the data; run `tl extract` (or `tl run`) first"
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    ("text", "size"),
    [("500MB", 500_000_000), ("2GB", 2_000_000_000), ("1.5 GiB", 1_610_612_736), ("12k", 12_000), ("7", 7)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


def test_a_size_beyond_all_measure_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache", "gc", "--max-size", "9" * 400]) == 2
    assert "is no size; give bytes" in capsys.readouterr().err


def test_a_store_that_is_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    (line,) = tl(capsys, "import", "features.arrow", "--store", tmp_path / "file", code=2)
    assert line == f"tl: the feature store {tmp_path / 'file'} is a file; name a folder"


def test_a_size_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache", "gc", "--max-size", "2 gallons"]) == 2
    assert "'2 gallons' is no size; give bytes, or a number with a unit: 500MB, 2GB, 1.5GiB" in capsys.readouterr().err


def test_one_damaged_space_hides_no_other(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = TWIN.folder(store)
    (folder / "space.json").write_text("{")
    lines = tl(capsys, "info", "--store", store)
    assert sum("bfloat16" in line or "float32" in line for line in lines if "left out" not in line) == 2
    (told,) = [line for line in lines if line.startswith("left out: ")]
    assert f"is damaged; delete {folder}" in told
    assert told in tl(capsys, "gc", "--store", store, "--keep-last", "5")
    assert told in tl(capsys, "export", "all.arrow", "--all", "--store", store)
    assert told.removeprefix("left out: ") in tl(capsys, "verify", "--store", store, code=1)
    assert folder.is_dir()


def test_a_folder_that_is_no_store(tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    for command in ("info", "verify"):
        (line,) = tl(capsys, command, "--store", tmp_path / "photos", code=2)
        assert f"{tmp_path / 'photos'} is no feature store; `tl cache info` without --store says where" in line
