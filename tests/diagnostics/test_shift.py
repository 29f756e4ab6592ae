"""Shift: random splits rarely alarm, planted shifts are found, and another balance of classes is called just that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from tl_core.diagnostics.results import Shift, ShiftTest
from tl_core.diagnostics.separation import on_axes, other_balance, separate
from tl_core.diagnostics.shift import MOST_GROUPS, TwoSets, shift, version_shift
from tl_core.types import Targets

TWO = Targets("multiclass", ("no", "yes"))
TAGS = Targets("multilabel", ("a", "b"))
VALUE = Targets("regression")
QUICK: dict[str, Any] = {"permutations": 150, "resamples": 20}


def rows(rng: np.random.Generator, n: int, truth: np.ndarray | None = None) -> np.ndarray:
    """Correlated heavy-tailed features, moved by the class where one is given."""
    mixing = np.random.default_rng(99).normal(size=(8, 60))
    x = rng.standard_t(4, size=(n, 8)) @ mixing + rng.normal(size=(n, 60))
    if truth is not None:
        x = x + np.outer(truth, np.linspace(-2, 2, 60))
    return x.astype(np.float32)


def drawn(rng: np.random.Generator, n: int) -> list[str]:
    return rng.choice(["train", "val", "test"], n, p=[0.6, 0.15, 0.25]).tolist()


def alarm(found: Shift | None) -> bool:
    """Whether anything at all was found, however little it matters."""
    assert found is not None
    words = ("told apart", "only a little", "does not see", "another balance")
    return found.state == "warn" or any(word in test.text for test in found.tests for word in words)


def told(first: np.ndarray, second: np.ndarray, **how: Any) -> ShiftTest:
    """Two sets of one class."""
    count = len(first) + len(second)
    two = TwoSets("a against b", np.concatenate([first, second]), np.arange(count) < len(first), np.zeros(count, int))
    (test,) = version_shift([two], TWO, **how)
    return test


@pytest.mark.parametrize("targets", [TWO, TAGS, VALUE])
def test_random_splits_and_groups_rarely_alarm(targets: Targets) -> None:
    alarms = 0
    sets = 40
    for seed in range(sets):
        rng = np.random.default_rng(seed)
        truth: np.ndarray = rng.integers(2, size=260)
        x = rows(rng, 260, truth)
        if targets is TAGS:
            truth = np.stack([truth, rng.integers(2, size=260)], axis=1).astype(np.float32)
        elif targets is VALUE:
            truth = truth + rng.normal(size=260)
        site = {"site": rng.choice(list("abc"), 260).tolist()}
        alarms += alarm(shift(x, drawn(rng, 260), truth, targets, attributes=site, seed=seed, **QUICK))
    assert alarms <= 7  # a tenth is allowed on average


def test_splits_by_whole_groups_rarely_alarm() -> None:
    alarms = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        group = rng.integers(24, size=240)
        x = rows(rng, 240) + 3 * rows(rng, 24)[group]  # rows of a group are much alike
        splits = np.array(drawn(rng, 24))[group].tolist()
        sex = rng.choice(["f", "m"], 24)[group].tolist()
        found = shift(
            x, splits, rng.integers(2, size=240), TWO, attributes={"sex": sex}, groups=[str(g) for g in group],
            seed=seed, **QUICK,
        )  # fmt: skip
        alarms += alarm(found)
    assert alarms <= 6


@pytest.mark.parametrize("own_class", [False, True])
def test_groups_that_lie_in_both_sets_and_in_one_rarely_alarm(own_class: bool) -> None:
    """New rows are of new groups and of former ones; a column of the groups has mistakes."""
    alarms = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        group = np.arange(240) // 10
        truth = rng.integers(2, size=24)[group] if own_class else rng.integers(2, size=240)
        x = rows(rng, 240, truth) + 3 * rows(rng, 24)[group]
        groups = [str(g) for g in group]
        added = (group < 6) | (rng.random(240) < 0.2)
        two = TwoSets("new rows against former ones", x, added, truth, groups=groups)
        version = Shift("ok", "", version_shift([two], TWO, seed=seed, **QUICK))
        sex = np.where(rng.random(240) < 0.03, "?", rng.choice(["f", "m"], 24)[group]).tolist()
        column = shift(x, ["train"] * 240, truth, TWO, attributes={"sex": sex}, groups=groups, seed=seed, **QUICK)
        alarms += alarm(version) + alarm(column)
    assert alarms <= 14  # of 80


def test_a_split_that_is_one_group_can_not_tell() -> None:
    rng = np.random.default_rng(11)
    group = np.arange(240) // 30
    x = rows(rng, 240) + 3 * rows(rng, 8)[group]
    splits = np.where(group == 0, "test", "train").tolist()
    found = shift(x, splits, rng.integers(2, size=240), TWO, groups=[str(g) for g in group], **QUICK)
    assert found is not None
    (test,) = found.tests
    assert test.p >= 1 / 8 - 0.05  # eight groups could have been the one
    assert test.state == "unclear"
    assert test.text.endswith("They come from too few groups to say.")


def test_what_differs_within_groups_is_found() -> None:
    rng = np.random.default_rng(12)
    group = np.arange(240) // 10
    device = rng.choice(["old", "new"], 240)
    x = rows(rng, 240) + 3 * rows(rng, 24)[group]
    x[device == "new", :5] += 3
    names = {"device": device.tolist()}
    found = shift(
        x, ["train"] * 240, rng.integers(2, size=240), TWO, attributes=names, groups=[str(g) for g in group], **QUICK
    )
    assert found is not None
    (test,) = found.tests
    assert (test.state, test.p) == ("warn", min(test.p, 0.02))
    assert test.auc.low > 0.6


def test_a_moved_group_is_found_with_its_cost() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=900)
    site = rng.choice(["north", "south", "west"], 900)
    x = rows(rng, 900, truth)
    x[site == "west", :5] += 3
    splits = np.array(drawn(rng, 900))
    tested = np.flatnonzero(splits == "test")
    right = rng.random(len(tested)) < np.where(site[tested] == "west", 0.5, 0.95)
    said = np.eye(2)[np.where(right, truth[tested], 1 - truth[tested])]
    settings = {"attributes": {"site": site.tolist()}, "predictions": said, "predicted": tested}
    found = shift(x, splits.tolist(), truth, TWO, **settings)
    assert found is not None
    assert found.state == "warn"
    tests = {test.name: test for test in found.tests}
    assert list(tests) == [
        "train against val", "train against test", *(f"site {name} against the others" for name in
        sorted(set(site), key=lambda s: -int((site == s).sum()))),
    ]  # fmt: skip
    west = tests["site west against the others"]
    assert (west.state, west.kind) == ("warn", "group")
    assert west.rows == (int((site == "west").sum()), int((site != "west").sum()))
    assert west.auc.low > 0.6
    assert west.p < 0.01
    assert west.mmd > 0
    inside = site[tested] == "west"
    assert west.cost is not None
    assert west.cost.value == pytest.approx(right[inside].mean() - right[~inside].mean(), abs=1e-6)
    assert west.cost.high < 0
    assert {name for name, _ in west.classes} == {"no", "yes"}
    assert found.text.split(". ", 1)[1] == west.text
    assert "There, accuracy is" in west.text
    assert [test.state for test in found.tests if test.kind == "split"] == ["ok", "ok"]
    assert [test.cost for test in found.tests if test.kind == "split"] == [None, None]
    assert shift(x, splits.tolist(), truth, TWO, **settings) == found
    adapter = TypeAdapter(Shift)
    assert adapter.validate_json(adapter.dump_json(found)) == found


def test_another_balance_of_classes_is_no_shift_of_features() -> None:
    apart = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        truth = np.r_[rng.random(300) < 0.3, rng.random(200) < 0.7].astype(np.int64)
        x = rows(rng, 500, truth)
        found = shift(x, ["train"] * 300 + ["test"] * 200, truth, TWO, seed=seed, **QUICK)
        assert found is not None
        (test,) = found.tests
        assert test.state == "warn"
        apart += "Only their classes are in another balance: " not in test.text
    assert apart <= 3
    blind = shift(x, ["train"] * 300 + ["test"] * 200, None, TWO, **QUICK)
    assert blind is not None
    assert blind.tests[0].p < 0.01  # whoever can't see the classes takes it for a shift
    assert "told apart" in blind.text


def test_the_class_that_moved_is_named() -> None:
    rng = np.random.default_rng(2)
    truth = rng.integers(3, size=900)
    x = rows(rng, 900)
    added = rng.random(900) < 0.4
    x[added & (truth == 1), :20] += 3
    two = TwoSets("new rows against former ones", x, added, truth)
    (test,) = version_shift([two], Targets("multiclass", ("a", "b", "c")))
    assert (test.name, test.kind, test.state) == ("new rows against former ones", "version", "warn")
    assert test.rows == (int(added.sum()), int((~added).sum()))
    assert test.classes[0][0] == "b"
    assert test.classes[0][1] > 0.8
    assert "Most moved: 'b'" in test.text


def test_versions_rarely_alarm() -> None:
    alarms = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        truth = rng.integers(2, size=200)
        x = rows(rng, 200, truth)
        sets = [TwoSets(name, x, rng.random(200) < 0.3, truth) for name in ("added", "removed")]
        alarms += alarm(Shift("ok", "", version_shift(sets, TWO, seed=seed, **QUICK)))
    assert alarms <= 7  # a tenth is allowed on average


def test_what_a_version_costs_is_told_where_rows_are_predicted() -> None:
    rng = np.random.default_rng(11)
    truth = rng.integers(2, size=500)
    x, first = rows(rng, 500, truth), np.arange(500) < 200
    x[first, :5] += 3
    predicted = np.arange(100, 400)  # 100 of the first set, 200 of the second
    right = rng.random(300) < np.where(first[predicted], 0.5, 0.95)
    said = np.eye(2)[np.where(right, truth[predicted], 1 - truth[predicted])]
    two = TwoSets("new rows against former ones", x, first, truth, said, predicted)
    (test,) = version_shift([two], TWO, **QUICK)
    assert test.cost is not None
    assert test.cost.value == pytest.approx(right[:100].mean() - right[100:].mean(), abs=1e-6)
    assert test.cost.high < 0
    assert "There, accuracy is" in test.text
    (alike,) = version_shift([TwoSets("the same", x, rng.random(500) < 0.5, truth)], TWO, **QUICK)
    assert alike.cost is None


def test_a_change_of_spread_alone_is_seen_by_kernel_means() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(300, 20)), 2 * rng.normal(size=(300, 20))
    found = told(first.astype(np.float32), second.astype(np.float32))
    assert found.mmd_p < 0.01
    assert found.state == "warn"
    assert "the rows differ, in a way that a linear classifier does not see" in found.text


def test_groups_that_all_differ_are_the_usual_thing() -> None:
    rng = np.random.default_rng(4)
    speaker = np.arange(600) % 6
    x = rows(rng, 600) + 4 * rows(rng, 6)[speaker]
    truth = rng.integers(2, size=600)
    right = rng.random(600) < 0.8
    said = np.eye(2)[np.where(right, truth, 1 - truth)]
    names = [f"s{s}" for s in speaker]
    found = shift(
        x, ["test"] * 600, truth, TWO, attributes={"speaker": names}, groups=names, predictions=said,
        predicted=np.arange(600),
    )  # fmt: skip
    assert found is not None
    assert len(found.tests) == 6
    assert all(test.auc.value > 0.9 and "as with most values of speaker" in test.text for test in found.tests)
    assert {test.state for test in found.tests} == {"ok"}, "what it costs is for the subgroups to say"


def test_too_few_groups_can_not_tell() -> None:
    rng = np.random.default_rng(5)
    group = np.arange(300) % 5
    x = rows(rng, 300) + 4 * rows(rng, 5)[group]
    splits = np.where(group < 3, "train", "test").tolist()
    found = shift(x, splits, rng.integers(2, size=300), TWO, groups=[str(g) for g in group], **QUICK)
    assert found is not None
    (test,) = found.tests
    assert test.p >= 0.09  # five groups can be dealt in ten ways
    assert test.state != "warn"
    by_rows = shift(x, splits, rng.integers(2, size=300), TWO, **QUICK)
    assert by_rows is not None
    assert by_rows.state == "warn"


def test_too_few_rows_and_classes_that_never_meet() -> None:
    rng = np.random.default_rng(6)
    x = rows(rng, 120)
    few = told(x[:15], x[15:])
    assert few.state == "unclear"
    assert few.text == "A against b: too few rows of the same classes to compare (15 and 105 rows)."
    (apart,) = version_shift([TwoSets("a against b", x, np.arange(120) < 60, np.arange(120) // 60)], TWO)
    assert apart.state == "unclear"
    assert shift(x, ["train"] * 120, None, TWO) is None


def test_rows_that_are_all_the_same_are_alike() -> None:
    same = np.ones((40, 8), np.float32)
    test = told(same, same, **QUICK)
    assert (test.auc.value, test.p, test.mmd_p) == (0.5, 1.0, 1.0)
    assert "no difference" in test.text or "can't tell" in test.text


def test_the_largest_groups_alone_are_tested() -> None:
    rng = np.random.default_rng(7)
    values = np.repeat([f"v{i:02d}" for i in range(25)], np.arange(21, 46))
    x = rows(rng, len(values))
    found = shift(x, ["test"] * len(values), None, TWO, attributes={"c": values.tolist()}, **QUICK)
    assert found is not None
    assert [t.name for t in found.tests] == [f"c v{i:02d} against the others" for i in range(24, 24 - MOST_GROUPS, -1)]


def test_two_values_are_one_comparison() -> None:
    rng = np.random.default_rng(8)
    x = rows(rng, 200)
    found = shift(x, ["test"] * 200, None, TWO, attributes={"sex": ["f", "m"] * 100}, **QUICK)
    assert found is not None
    assert [test.name for test in found.tests] == ["sex f against the others"]


def test_p_values_are_even_where_nothing_differs() -> None:
    ps, areas = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        strata = rng.integers(4, size=150)
        first = rng.random(150) < 0.3
        x = on_axes(rows(rng, 150), strata)
        parts = separate(
            x, first, strata, groups=None, confidence=0.9, resamples=50, permutations=99, seed=seed
        )  # fmt: skip
        assert parts is not None
        ps += [parts.p, parts.mmd_p]
        areas.append(parts.auc.value)
        assert other_balance(strata, first, groups=None, permutations=99, seed=seed)[1] > 0.005
    assert abs(float(np.mean(ps)) - 0.5) < 0.08
    assert 0.03 < float(np.mean(np.array(ps) <= 0.1)) < 0.17
    assert abs(float(np.mean(areas)) - 0.5) < 0.02


@pytest.mark.parametrize(("moved", "found"), [(0.4, "differ"), (2.0, "told apart")])
def test_small_and_large_shifts(moved: float, found: str) -> None:
    rng = np.random.default_rng(9)
    first, second = rng.normal(size=(900, 30)), rng.normal(size=(900, 30))
    first[:, 0] += moved
    test = told(first.astype(np.float32), second.astype(np.float32))
    assert found in test.text


def test_more_confidence_asks_for_more_permutations() -> None:
    rng = np.random.default_rng(10)
    x = rows(rng, 400)
    x[:200] += 5
    values = ["far"] * 200 + [f"v{i % 9}" for i in range(200)]
    few = {"permutations": 10, "resamples": 20}
    found = shift(x, ["test"] * 400, None, TWO, attributes={"c": values}, confidence=0.97, **few)
    assert found is not None
    assert "told apart" in next(test.text for test in found.tests if test.name.startswith("c far"))


def cube(path: Path) -> np.ndarray:
    """The pixels of an image in a few numbers: means and spreads of the colours over a grid."""
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB").resize((64, 64)), np.float32).reshape(8, 8, 8, 8, 3)
    return np.concatenate([pixels.mean(axis=(1, 3)).ravel(), pixels.std(axis=(1, 3)).ravel()])


@pytest.mark.shared
def test_real_images_of_one_group_brightened(shared_data: Path) -> None:
    folder = shared_data / "datasets" / "pacs_mini" / "photo" / "train"
    files = sorted(folder.glob("*/*.jpg"))
    labels = sorted({file.parent.name for file in files})
    truth = np.array([labels.index(file.parent.name) for file in files])
    x = np.stack([cube(file) for file in files])
    targets = Targets("multiclass", tuple(labels))
    group = np.random.default_rng(0).choice(["a", "b", "c"], len(files))
    splits = ["train"] * len(files)
    plain = shift(x, splits, truth, targets, attributes={"camera": group.tolist()})
    assert plain is not None
    assert not alarm(plain)
    bright = x.copy()
    bright[group == "b", : x.shape[1] // 2] = np.minimum(255, 1.3 * bright[group == "b", : x.shape[1] // 2])
    found = shift(bright, splits, truth, targets, attributes={"camera": group.tolist()})
    assert found is not None
    states = {test.name.split()[1]: test.state for test in found.tests}
    assert states["b"] == "warn"
