"""Real data sets, and many rows in little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tl_core.config import load_config
from tl_core.manifest import Manifest, scan
from tl_core.types import Loader, Source

SCRIPT = """
import csv, random, resource, sys, time
from pathlib import Path
from tl_core.config import load_config
from tl_core.manifest import scan
from tl_core.types import Loader

class Words(Loader):
    modality, extensions, inline = "words", frozenset(), True
    def decode(self, source): return source
    def render(self, source): return ""

path = Path(sys.argv[1])
r = random.Random(0)
with path.open("w", newline="") as stream:
    writer = csv.writer(stream)
    writer.writerow(["text", "label", "who", "other"])
    for i in range(200_000):
        text = f"message {i} " + "red blue a\\nbreak " * (i % 16)
        writer.writerow([text, f"c{i % 50}", f"u{r.randrange(20_000)}", "x" * 50])

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

before, start = peak(), time.process_time()
manifest = scan(path, load_config(None, sys.argv[2:]), [Words()], progress=False)
print(len(manifest), peak() - before, time.process_time() - start)
"""


def test_two_hundred_thousand_rows(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "a.csv"), "data.group=who"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, growth_mb, seconds = map(float, run.stdout.split())
    assert rows == 200_000
    assert growth_mb < 300
    assert seconds < 15  # of processor time: other work on the machine does not count


class Accepting(Loader):
    """Takes every file of its kinds."""

    def decode(self, source: Source) -> Any:
        return source

    def render(self, source: Source) -> str:
        return ""


class Image(Accepting):
    modality = "image"
    extensions = frozenset({".jpg", ".jpeg", ".png"})


class Audio(Accepting):
    modality = "audio"
    extensions = frozenset({".wav", ".ogg", ".flac"})


class Text(Accepting):
    modality = "text"
    extensions = frozenset({".txt"})
    inline = True


def read(path: Path, *settings: str) -> Manifest:
    return scan(path, load_config(None, settings), [Image(), Audio(), Text()], progress=False)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "modality", "classes", "train", "test"),
    [
        ("caltech20", "image", 20, 588, 295),
        ("pacs_mini", "image", 7, 560, 280),
        ("sign_digits", "image", 10, 300, 150),
        ("banking77", "text", 77, 2310, 924),
        ("banking77_full", "text", 77, 10003, 3080),
        ("esc10", "audio", 10, 320, 80),
        ("fsdd", "audio", 10, 600, 300),
    ],
)
def test_real_sets(shared_data: Path, name: str, modality: str, classes: int, train: int, test: int) -> None:
    manifest = read(shared_data / "datasets" / name)
    assert manifest.modality == modality
    assert len(manifest.targets.classes) == classes
    assert len(manifest.rows("train")) + len(manifest.rows("val")) == train
    assert len(manifest.rows("test")) == test
    assert not manifest.quarantined()


@pytest.mark.shared
def test_a_dev_table_is_the_val_split(shared_data: Path) -> None:
    manifest = read(shared_data / "datasets" / "sst2_mini")
    assert [len(manifest.rows(split)) for split in ("train", "val", "test")] == [3000, 872, 1821]
    assert "contents with the same label in several of the data's own splits: 1 (kept)" in manifest.notes


@pytest.mark.shared
def test_speakers_stay_whole_in_what_is_carved(shared_data: Path) -> None:
    manifest = read(shared_data / "datasets" / "fsdd", "data.group=speaker")
    train, val = (set(manifest.groups(manifest.rows(split)) or []) for split in ("train", "val"))
    assert not train & val
    assert len(train | val) == 6
    note = "6 of 6 values of group column 'speaker' occur in several of the data's own splits (kept)"
    assert note in manifest.notes


@pytest.mark.shared
def test_class_folders_without_their_listing(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "datasets" / "sign_digits"
    manifest = read(source / "train")
    assert manifest.targets.classes == tuple("0123456789")
    assert {split: sum(n.values()) for split, n in manifest.counts().items()} == {"train": 200, "val": 40, "test": 60}
