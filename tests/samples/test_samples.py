"""The image and sound samples: the same bytes from the same seed, and a scan that finds exactly the planted faults."""

from __future__ import annotations

import csv
import hashlib
import importlib
import os
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

from tl_core.config import load_config
from tl_core.manifest import Manifest, scan
from tl_core.registry import load_registry

ROOT = Path(__file__).resolve().parents[2]
FEW = 2  # people of each split: enough for a split by groups, and quick


@dataclass(frozen=True)
class Sample:
    """A sample set of files and what is promised of it."""

    modality: str
    group: str
    classes: tuple[str, ...]
    reasons: tuple[str, ...]  # how the quarantine's reasons begin, sorted

    @property
    def script(self) -> Path:
        return ROOT / "samples" / f"make_{self.modality}.py"


IMAGE = Sample(
    "image",
    "artist",
    ("ant", "bee", "beetle", "butterfly", "dragonfly", "grasshopper", "moth", "spider"),
    (
        "empty file",
        "missing file",
        "no label",
        "not an image: an HTML page",
        "same content in the test split",
        "truncated",
    ),
)
AUDIO = Sample(
    "audio",
    "recordist",
    ("cat", "cow", "cricket", "dog", "duck", "frog", "owl", "sheep"),
    ("empty file", "missing file", "no label", "not an audio file", "same content in the test split", "truncated MP3"),
)


@pytest.fixture(scope="module", params=[IMAGE, AUDIO], ids=lambda sample: sample.modality)
def sample(request: pytest.FixtureRequest) -> Sample:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def few(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set with only a few people."""
    return made(sample, tmp_path_factory.mktemp("few") / sample.modality, seed=0)


def made(sample: Sample, out: Path, seed: int, people: int = FEW, hash_seed: str = "0") -> Path:
    command = [sys.executable, str(sample.script), "--seed", str(seed), "--few", str(people), "--out", str(out)]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=out.parent)
    return out


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.md5(path.read_bytes()).hexdigest() for path in files}


def good(digests: dict[str, str]) -> dict[str, str]:
    """Without the planted files, whose names end in a letter, and the table."""
    return {file: digest for file, digest in digests.items() if Path(file).stem[-1].isdigit()}


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def scanned(sample: Sample, folder: Path) -> Manifest:
    config = load_config(overrides=[f"data.group={sample.group}"])
    return scan(folder, config, load_registry().loaders(), progress=False)


def test_same_seed_same_bytes(sample: Sample, few: Path, tmp_path: Path) -> None:
    again = good(contents(made(sample, tmp_path / "again", seed=0, people=1, hash_seed="7")))
    assert len(again) == 2 * 8 * 3
    assert again.items() <= contents(few).items()
    other = good(contents(made(sample, tmp_path / "again", seed=1, people=1)))  # in place of the former set
    assert not set(again.values()) & set(other.values())


def test_planted_faults_are_the_quarantine(sample: Sample, few: Path) -> None:
    manifest = scanned(sample, few)
    bad = manifest.quarantined()
    planted = {row["file"] for row in table(few) if not Path(row["file"]).stem[-1].isdigit()}
    assert {item["id"] for item in bad} == planted
    reasons = sorted(item["reason"] for item in bad)
    assert len(reasons) == len(sample.reasons)
    for reason, start in zip(reasons, sample.reasons):
        assert reason.startswith(start)


def test_scan_needs_no_settings(sample: Sample, few: Path) -> None:
    manifest = scanned(sample, few)
    assert manifest.modality == sample.modality
    assert manifest.targets.classes == sample.classes
    counts = manifest.counts()
    assert set(counts["test"].values()) == {FEW * 3}
    assert {counts["train"][name] + counts["val"][name] for name in sample.classes} == {FEW * 3}
    assert not [note for note in manifest.notes if "several" in note]  # neither copies nor groups cross splits


def test_groups_stay_in_one_split(sample: Sample, few: Path) -> None:
    splits = defaultdict(set)
    for row in table(few):
        splits[row[sample.group]].add(row["split"])
    assert len(splits) == 2 * FEW
    assert all(len(found) == 1 for found in splits.values())


def test_other_folders_are_left_alone(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    command = [sys.executable, str(sample.script), "--few", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "holds something else than a sample set (no metadata.csv in it); give an empty folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_killed_call_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "samples"))
    module = importlib.import_module("table")
    rows = [module.Row(f"train/a/{i}.jpg", "a", "train", "ada", b"%d" % i) for i in range(3)]
    write = Path.write_bytes

    def dies(path: Path, data: bytes) -> int:
        if path.name == "1.jpg":
            raise KeyboardInterrupt
        return write(path, data)

    with monkeypatch.context() as killed:
        killed.setattr(Path, "write_bytes", dies)
        with pytest.raises(KeyboardInterrupt):
            module.write(rows, tmp_path / "set", group="artist")
    assert (tmp_path / "set/train/a/0.jpg").is_file()
    module.require_free(tmp_path / "set")
    module.write(rows, tmp_path / "set", group="artist")
    assert [row["file"] for row in table(tmp_path / "set")] == sorted(contents(tmp_path / "set"))[1:]


def test_the_tracked_set_is_as_promised(sample: Sample) -> None:
    folder = ROOT / "data" / sample.modality
    if not (folder / "metadata.csv").is_file():
        pytest.skip(f"{folder} is not checked out: `dvc pull data.dvc`")
    rows = table(folder)
    assert list(rows[0]) == ["file", "label", "split", sample.group]
    assert Counter(row["split"] for row in rows) == {"train": 485, "test": 217}
    manifest = scanned(sample, folder)
    assert len(manifest.quarantined()) == 6
    manifest.require_usable(0.01)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 5e6
