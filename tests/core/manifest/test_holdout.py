"""A frozen test set keeps its samples in the test split, whatever comes and goes beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tl_core.config import RunConfig, load_config
from tl_core.digests import text_digest
from tl_core.errors import FormatError
from tl_core.gate import freeze
from tl_core.manifest import Manifest, test_set
from tl_core.manifest.splits import TEST, TRAIN, VAL, assign, make_units

from .sources import read, reasons, sizes, table, texts

HEADER = ("text", "label")


def held(manifest: Manifest, split: str = "test") -> set[str]:
    return set(manifest.digests(manifest.rows(split)))


def frozen(path: Path, rows: list[tuple[str, str]]) -> test_set.TestSet:
    found = freeze(read(table(path / "data.csv", rows)))
    found.save(path / "test_set.json")
    return found


def test_without_one_new_samples_push_test_samples_into_training(tmp_path: Path) -> None:
    """Why a frozen set is needed: each stratum gives its first fifth by rank, and a newcomer may rank before it."""
    rows = texts(200)
    before = held(read(table(tmp_path / "data.csv", rows)))
    left = []
    for batch in range(8):
        after = read(table(tmp_path / "data.csv", [*rows, *((f"newcomer {batch} {i}", "yes") for i in range(10))]))
        left.append(len(before & (held(after, "train") | held(after, "val"))))
    assert max(left) > 0


def test_held_samples_stay_and_the_share_is_kept(tmp_path: Path) -> None:
    """Of a few newcomers those join that rank among the held ones, and no other; of many as many as the share asks."""
    rows = texts(200)
    before = frozen(tmp_path, rows)
    known = held(read(tmp_path / "data.csv"), "train") | held(read(tmp_path / "data.csv"), "val")
    for count in (0, 40, 400):
        more = [*rows, *((f"newcomer {i}", "yes") for i in range(count))]
        after = read(table(tmp_path / "data.csv", more), "data.holdout=test_set.json", base=tmp_path)
        assert set(before.labels) <= held(after)
        if count < 100:
            assert not known & held(after)
            assert abs(sizes(after)["test"] - 40 - count // 5) < 3 * (count * 0.16) ** 0.5 + 1
        else:
            assert sizes(after)["test"] == 20 + (100 + count) // 5
        (note,) = (note for note in after.notes if "test_set.json holds them" in note)
        assert note == f"40 rows are in test because test_set.json holds them (test set version 1, {before.hash[:12]})"


def test_with_nothing_new_the_splits_are_those_of_the_freezing(tmp_path: Path) -> None:
    rows = texts(100)
    frozen(tmp_path, rows)
    plain = read(tmp_path / "data.csv")
    pinned = read(tmp_path / "data.csv", "data.holdout=test_set.json", base=tmp_path)
    assert plain.table["split"] == pinned.table["split"]
    assert plain.data_version == pinned.data_version


def test_a_held_sample_stays_under_a_new_label_and_wherever_the_data_put_it(tmp_path: Path) -> None:
    before = frozen(tmp_path, texts(60))
    told = [(text, {"yes": "no", "no": "yes"}[label] if text_digest(text) in before.labels else label) for text, label
            in texts(60)]  # fmt: skip
    after = read(table(tmp_path / "data.csv", told), "data.holdout=test_set.json", base=tmp_path)
    assert held(after) == set(before.labels)
    rows = [(text, label, "train" if i % 3 else "test") for i, (text, label) in enumerate(texts(60))]
    own = read(table(tmp_path / "own.csv", rows, (*HEADER, "split")), "data.holdout=test_set.json", base=tmp_path)
    assert set(before.labels) <= held(own)
    moved = len(held(own)) - 20
    assert moved > 0
    assert any(note.endswith(f"the data's own splits have {moved} test rows elsewhere") for note in own.notes)
    assert reasons(own) == {}


def test_a_group_with_a_held_sample_is_whole_in_test(tmp_path: Path) -> None:
    def write(count: int) -> Path:
        rows = [(f"{i} by {i % 12}", "yes" if i % 2 else "no", f"speaker {i % 12}") for i in range(count)]
        return table(tmp_path / "data.csv", rows, (*HEADER, "who"))

    settings = ("data.group=who", "data.label=label")
    first = read(write(120), *settings)
    before = freeze(first)
    before.save(tmp_path / "set.json")
    for seed in range(3):
        after = read(write(240), *settings, "data.holdout=set.json", f"seed={seed}", base=tmp_path)
        groups = {split: set(after.groups(after.rows(split)) or ()) for split in ("train", "val", "test")}
        assert set(before.labels) <= held(after)
        assert set(first.groups(first.rows("test")) or ()) <= groups["test"]
        assert not groups["test"] & (groups["train"] | groups["val"])
        assert groups["train"]
        assert groups["val"]


def test_held_rows_count_in_their_stratum() -> None:
    """Of 20 units 4 belong to test: 3 that are held and 1 by rank; of a stratum that is all held nothing more."""
    units = make_units(np.arange(23), [text_digest(str(i)) for i in range(23)], None)
    strata = np.array([0] * 20 + [1] * 3)
    stays = np.isin(np.arange(23), [0, 7, 19, 20, 21])
    splits, notes = assign(np.full(23, -1, np.int8), (), units, strata, RunConfig(), stays)
    assert (splits[stays] == TEST).all()
    assert np.bincount(splits[:20], minlength=3).tolist() == [13, 3, 4]
    assert splits[22] == TRAIN
    assert VAL in splits
    assert notes[0].startswith("no test split in the data: 1 of 18 training rows taken, beside 5 that are held there, ")


def test_groups_make_up_what_the_held_ones_lack() -> None:
    groups: list[str | None] = [f"g{i // 5}" for i in range(100)]
    units = make_units(np.arange(100), [text_digest(str(i)) for i in range(100)], groups)
    config = load_config(None, ["data.group=who"])
    for count in (1, 4, 10):
        stays = np.zeros(100, bool)
        stays[: 5 * count : 5] = True  # one row of each of these groups
        splits, _ = assign(np.full(100, -1, np.int8), (), units, np.arange(100) % 2, config, stays)
        assert (splits[: 5 * count] == TEST).all()
        assert abs(int((splits == TEST).sum()) - max(20, 5 * count)) <= 5


def test_the_file_is_the_same_every_time_and_readable(tmp_path: Path) -> None:
    one = frozen(tmp_path, texts(60))
    first = (tmp_path / "test_set.json").read_bytes()
    again = test_set.TestSet.load(tmp_path / "test_set.json")
    assert again == one
    again.save(tmp_path / "test_set.json")
    assert (tmp_path / "test_set.json").read_bytes() == first
    assert json.loads(first)["sha256"] == one.hash
    assert first.count(b"\n") == len(one) + 9  # a line for each row: git shows what changed


def test_a_hundred_thousand_rows_are_fine(tmp_path: Path) -> None:
    rows = tuple(sorted((text_digest(str(i)), f"class {i % 50}") for i in range(100_000)))
    one = test_set.TestSet(3, "multiclass", tuple(f"class {i}" for i in range(50)), rows)
    one.save(tmp_path / "set.json")
    assert test_set.TestSet.load(tmp_path / "set.json") == one


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda text: text.replace('"format": 1', '"format": 2'), "has format 2, this tl reads up to 1; update tl"),
        (lambda text: text[:-20], "is no test set or damaged; fetch it again"),
        (lambda text: text.replace('", "yes"]', '", "no"]', 1), "does not hold the rows that it was frozen with"),
        (lambda text: text.replace('"version": 1', '"version": 1.5e'), "is no test set or damaged"),
        (lambda text: text.replace("multiclass", "ranking"), "is no test set or damaged"),
        (lambda text: "[]", "is no test set or damaged"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: object, text: str) -> None:
    frozen(tmp_path, texts(60))
    path = tmp_path / "test_set.json"
    assert callable(change)
    path.write_text(change(path.read_text()))
    with pytest.raises(FormatError, match=text):
        read(tmp_path / "data.csv", "data.holdout=test_set.json", base=tmp_path)


def test_a_missing_file_has_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no test set at .*none\.json, which data\.holdout names; .* null"):
        read(table(tmp_path / "data.csv", texts(60)), "data.holdout=none.json", base=tmp_path)


def test_unusable_held_rows_stay_marked(tmp_path: Path) -> None:
    before = frozen(tmp_path, texts(60))
    digest = next(iter(before.labels))
    told: list[tuple[str, str | None]] = [
        (text, None if text_digest(text) == digest else label) for text, label in texts(60)
    ]
    after = read(table(tmp_path / "data.csv", told), "data.holdout=test_set.json", base=tmp_path)
    assert set(before.labels) - held(after) == {digest}
    assert [line["split"] for line in after.quarantined()] == ["test"]
