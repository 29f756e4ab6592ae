"""The sample set is the same bytes for the same seed, and built as samples/README.md says."""

from __future__ import annotations

import csv
import importlib.util
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "samples" / "make_text.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_text", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_text"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(script: ModuleType) -> list[Any]:
    return script.make_rows(0)  # type: ignore[no-any-return]


def good(rows: list[Any]) -> list[Any]:
    texts = Counter(row.text for row in rows)
    return [row for row in rows if row.text.strip() and row.label and texts[row.text] == 1]


def test_same_seed_same_bytes(script: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "new" / "messages.csv"
    command = [sys.executable, "-I", str(SCRIPT), "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, env={"PYTHONHASHSEED": "7"})
    assert out.read_bytes() == script.to_csv(script.make_rows(0)).encode("utf-8")
    assert script.make_rows(0) != script.make_rows(1)
    assert len(out.read_bytes()) < 200_000
    with out.open(encoding="utf-8", newline="") as stream:
        assert [tuple(row.values()) for row in csv.DictReader(stream)] == [
            (row.text, row.label, row.split, row.author) for row in script.make_rows(0)
        ]


def test_counts(rows: list[Any]) -> None:
    assert Counter(row.split for row in good(rows)) == {"train": 683, "test": 256}
    labels = Counter(row.label for row in good(rows) if row.split == "test")
    assert len(labels) == 8
    assert set(labels.values()) == {32}
    train = Counter(row.label for row in good(rows) if row.split == "train")
    assert train.keys() == labels.keys()
    assert min(train.values()) >= 80


def test_authors_stay_in_one_split(rows: list[Any]) -> None:
    splits = defaultdict(set)
    for row in rows:
        splits[row.author].add(row.split)
    assert len(splits) == 40
    assert all(len(found) == 1 for found in splits.values())


def test_seeds_are_distinct_and_their_slots_known(script: ModuleType) -> None:
    intents = script.read_seeds()
    seeds = [seed for first, second in intents.values() for seed in first + second]
    assert len(seeds) == len(set(seeds))
    assert {len(first) for first, _ in intents.values()} == {58}
    assert {slot for seed in seeds for slot in re.findall(r"\{(.*?)\}", seed)} == set(script.SLOTS)


def test_wording_of_the_test_rows_is_new(rows: list[Any]) -> None:
    def phrases(split: str) -> set[tuple[str, ...]]:  # 12 words: longer than the asides, which both splits share
        found = set()
        for row in good(rows):
            words = re.findall(r"[a-z]+", row.text.lower())
            if row.split == split:
                found |= {tuple(words[i : i + 12]) for i in range(len(words) - 11)}
        return found

    assert len(phrases("test")) > 200
    assert not phrases("train") & phrases("test")


def test_planted_faults_are_few(rows: list[Any]) -> None:
    assert sum(not row.text for row in rows) == 1
    assert sum(bool(row.text) and not row.text.strip() for row in rows) == 1
    assert sum(not row.label for row in rows) == 1
    twins = defaultdict(list)
    for row in rows:
        twins[row.text].append(row)
    ((first, second),) = [found for found in twins.values() if len(found) > 1]
    assert {first.split, second.split} == {"train", "test"}
    assert first.label != second.label
    assert len(rows) - len(good(rows)) < 0.01 * len(rows)


def test_messages_are_varied(rows: list[Any]) -> None:
    texts = [row.text for row in good(rows)]
    assert any(text.islower() for text in texts)
    assert any(text.isupper() for text in texts)
    assert any(not text.isascii() for text in texts)
    assert 20 < sorted(len(text) for text in texts)[len(texts) // 2] < 120
