"""Diagnostics in each state, for the tests of what shows them."""

from __future__ import annotations

from tl_core.diagnostics.results import (
    Bin,
    Calibration,
    Corruption,
    Diagnostics,
    Duplicate,
    GroupScore,
    GroupSplit,
    LabelErrors,
    Leakage,
    OutOfDistribution,
    Robustness,
    Shift,
    ShiftTest,
    State,
    Subgroups,
    Suspect,
    Unusual,
)
from tl_core.evaluation import Interval

STATES: tuple[State, ...] = ("ok", "warn", "unclear")


def around(value: float, half: float = 0.03) -> Interval:
    """An interval of that half width."""
    return Interval.of(value, value - half, value + half)


def calibration(state: State = "warn", text: str = "It is too sure by 7 points (5 to 9).") -> Calibration:
    """Too sure, the more so the surer."""
    bins = tuple(
        Bin(0.1 * i, 0.1 * i + 0.1, 40 + 9 * i, 0.1 * i + 0.05, around(0.1 * i + 0.05 - 0.012 * i, 0.06))
        for i in range(2, 10)
    )
    return Calibration(state, text, 620, around(0.071, 0.02), around(0.07, 0.02), around(0.41), around(0.2), None, bins)


def leakage(state: State = "warn", text: str = "23 of 620 test rows repeat rows of other splits.") -> Leakage:
    """Copies, near copies and shared groups; none of them where nothing was found."""
    groups = GroupSplit(
        6, around(0.95), around(0.81, 0.07), around(0.14, 0.06),
        "A split that ignores groups promises 14 points (8 to 20) more than one that keeps them whole.",
    )  # fmt: skip
    if state == "ok":
        return Leakage(state, "No test row repeats a row of another split.", 0, 0, (), 0, 0.987, None, None, None, (),
                       None)  # fmt: skip
    pairs = tuple(
        Duplicate(i, f"test/{i:03d}.png", 500 + i, f"train/{i:03d}.png", "train", 1 - i / 400, i < 5, i % 7 == 3)
        for i in range(23)
    )
    return Leakage(
        state,
        text,
        5,
        18,
        ("anna", "jackson"),
        31,
        0.987,
        around(0.91),
        around(0.88),
        around(0.03, 0.01),
        pairs,
        groups,
    )


def labels(state: State = "warn", text: str = "41 of 2,400 labels look wrong.") -> LabelErrors:
    """A list of suspects."""
    found = 0 if state == "ok" else 41
    suspects = tuple(
        Suspect(900 + i, f"train/{i:03d}.png", "train", "refund", "cancel order", round(i / 60, 4))
        for i in range(found)
    )
    return LabelErrors(state, text, 2400, found, around(found / 2400, found / 6000), suspects)


def shift(state: State = "warn", text: str = "Rows of speaker anna are unlike the others.") -> Shift:
    """Splits alike, a group apart, a version that nobody can tell."""
    tests = (
        ShiftTest("train against test", "split", "ok", "No shift.", (1800, 620), around(0.51), 0.41, 0.0002, 0.38, (),
                  None),
        ShiftTest("speaker anna against the others", "group", state, "Apart.", (120, 500), around(0.83), 0.0005, 0.031,
                  0.0009, (("refund", 0.91), ("greeting", 0.84)), around(-0.11)),
        ShiftTest("former data against these", "version", "unclear", "Can't tell.", (900, 40), around(0.57, 0.09), 0.09,
                  0.004, 0.12, (), None),
    )  # fmt: skip
    return Shift(state, text, tests)


def subgroups(state: State = "warn", column: str = "device", text: str = "Phones do worse.") -> Subgroups:
    """Three groups, the first of them worse where anything was found."""
    groups = (
        GroupScore("phone", 210, around(0.79), around(-0.14, 0.06)), GroupScore("tablet", 44, around(0.88, 0.08),
                                                                                around(-0.01, 0.11)),
        GroupScore("desktop", 366, around(0.93), around(0.09)),
    )  # fmt: skip
    return Subgroups(column, state, text, "phone" if state == "warn" else None, groups)


def unusual(
    state: State = "warn", text: str = "9% of the test rows are unlike the training rows."
) -> OutOfDistribution:
    """The familiar ones are right, the others less so."""
    curve = tuple((round(0.05 * i, 2), round(0.98 - 0.002 * i**1.3, 4)) for i in range(1, 21))
    rows = tuple(Unusual(40 + i, f"test/{40 + i:03d}.png", round(2.1 - 0.1 * i, 3)) for i in range(8))
    return OutOfDistribution(state, text, 0.412, 0.95, around(0.09), around(0.93), around(0.61, 0.1), curve, rows)


def robustness(state: State = "warn", text: str = "Blur costs 4 points (2 to 6) at severity 1.") -> Robustness:
    """Five corruptions of rising cost."""
    corruptions = tuple(
        Corruption(name, tuple((s, around(0.9 - k * s, 0.05), around(-k * s, 0.04)) for s in (1, 3, 5)))
        for name, k in (
            ("blur", 0.04),
            ("noise", 0.09),
            ("jpeg", 0.005),
            ("brightness", 0.02),
            ("low resolution", 0.06),
        )
    )
    return Robustness(state, text, 64, around(0.9, 0.05), "noise", corruptions)


def all_in(state: State) -> Diagnostics:
    """Every check, all in one state."""
    return Diagnostics(
        calibration(state), leakage(state), labels(state), shift(state), (subgroups(state), subgroups(state, "age")),
        unusual(state), robustness(state), ("scratch: the network is too large for evaluate.scratch_minutes",),
    )  # fmt: skip


def hostile(evil: str) -> Diagnostics:
    """Every text field the same."""
    one = around(0.5)
    return Diagnostics(
        calibration("warn", evil),
        Leakage("warn", evil, 1, 1, (evil,), 1, 0.9, one, one, one,
                (Duplicate(1, evil, 2, evil, evil, 0.99, False, True),), GroupSplit(2, one, one, one, evil)),
        LabelErrors("warn", evil, 9, 1, one, (Suspect(1, evil, evil, evil, evil, 0.1),)),
        Shift("warn", evil,
              (ShiftTest(evil, "group", "warn", evil, (3, 4), one, 0.01, 0.1, 0.2, ((evil, 0.7),), one),)),
        (Subgroups(evil, "warn", evil, evil, (GroupScore(evil, 12, one, Interval.of(-0.5, -0.6, -0.4)),)),),
        OutOfDistribution("warn", evil, 0.5, 0.95, one, one, one, ((0.5, 0.9), (1.0, 0.8)), (Unusual(1, evil, 2.0),)),
        Robustness("warn", evil, 9, one, evil, (Corruption(evil, ((1, one, one), (5, one, one))),)),
        (evil,),
    )  # fmt: skip
