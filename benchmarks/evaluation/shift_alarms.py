"""How often shift() alarms where nothing has moved, and how often where something has, by simulation.

    OMP_NUM_THREADS=1 python -m benchmarks.evaluation.shift_alarms [--sets 400] [--only SETTING ...]
    python -m benchmarks.evaluation.shift_alarms --render

Every setting makes up data sets of about 240 rows and asks for all comparisons that it has columns for. An alarm is
any difference that is claimed, however little it is said to matter; a warning is what the report puts first. Features
are correlated and heavy-tailed, and depend on the class. In settings with groups, rows of a group are much alike.
Results go to benchmarks/results/evaluation_shift_alarms.{json,md} after each setting, and a setting that is there is
not run again. Budget: about five minutes of one core.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from benchmarks.selection.setting import RESULTS
from tl_core.diagnostics.results import ShiftTest
from tl_core.diagnostics.shift import TwoSets, shift, version_shift
from tl_core.evaluation.bootstrap import Bools, Floats, Ints
from tl_core.intervals import wilson
from tl_core.types import Targets
from tl_core.weights import read_json
from tl_core.workspace import write_json, write_text

PATH = RESULTS / "evaluation_shift_alarms.json"
PROMISED = 0.1
WIDTH = 20  # of the features
ROWS = 240
GROUPS = 24
PERMUTATIONS, RESAMPLES = 150, 10  # of an interval: alarms go by permutations
CLAIMS = ("told apart", "only a little", "does not see", "another balance")  # what a sentence has that claims something


@dataclass(frozen=True, eq=False)
class Made:
    """A made-up data set. added: bool [N], rows that the former version lacked; then these are what is compared."""

    features: Floats
    splits: list[str]
    truth: Any
    targets: Targets
    attributes: Mapping[str, list[str]] = field(default_factory=dict)
    groups: list[str] | None = None
    added: Bools | None = None

    def compared(self, seed: int) -> Sequence[ShiftTest]:
        """All comparisons that there are columns for."""
        x = self.features.astype(np.float32)
        if self.added is not None:
            sets = TwoSets("new rows", x, self.added, self.truth, groups=self.groups)
            return version_shift([sets], self.targets, permutations=PERMUTATIONS, resamples=RESAMPLES, seed=seed)
        found = shift(
            x, self.splits, self.truth, self.targets, attributes=self.attributes, groups=self.groups,
            permutations=PERMUTATIONS, resamples=RESAMPLES, seed=seed,
        )  # fmt: skip
        assert found is not None
        return found.tests


Draw = Callable[[np.random.Generator], Made]


@dataclass(frozen=True)
class Setting:
    """A source of data sets. where: an alarm is asked of comparisons whose name begins like that."""

    draw: Draw
    where: str = ""


def features(rng: np.random.Generator, rows: int, truth: Floats | Ints | None = None) -> Floats:
    """float64 [rows, WIDTH]: correlated, heavy-tailed, moved by the class or value where there is one."""
    mixing = np.random.default_rng(99).normal(size=(8, WIDTH))
    x: Floats = rng.standard_t(4, size=(rows, 8)) @ mixing + rng.normal(size=(rows, WIDTH))
    return x if truth is None else x + np.outer(truth, np.linspace(-2, 2, WIDTH))


def splits(rng: np.random.Generator, count: int, test: float = 0.25) -> Any:
    """Splits by chance, [count] names."""
    return rng.choice(["train", "val", "test"], count, p=[0.9 - test, 0.1, test])


def _classes(count: int) -> Targets:
    return Targets("multiclass", tuple(f"c{number}" for number in range(count)))


def by_rows(
    classes: int = 2, rare: float = 0.0, sites: int = 3, test: float = 0.25, task: str = "multiclass", new: bool = False
) -> Draw:
    """Rows dealt at random to splits and to the values of one column, or (new) to new and former data."""

    def draw(rng: np.random.Generator) -> Made:
        code = rng.integers(classes, size=ROWS) if not rare else (rng.random(ROWS) < rare).astype(np.int64)
        truth: Any = code
        x, targets = features(rng, ROWS, code), _classes(classes)
        if task == "multilabel":
            truth = np.stack([code, rng.integers(2, size=ROWS)], axis=1).astype(np.float32)
            targets = Targets("multilabel", ("a", "b"))
        elif task == "regression":
            truth, targets = code + rng.normal(size=ROWS), Targets("regression")
        of, site = splits(rng, ROWS, test), rng.integers(sites, size=ROWS)
        attributes = {"site": [f"s{number}" for number in site]}
        return Made(x, of.tolist(), truth, targets, attributes, added=rng.random(ROWS) < 0.3 if new else None)

    return draw


def by_groups(
    *,
    whole: bool = True,
    uneven: bool = False,
    own_class: bool = False,
    column: str = "group",
    mistaken: float = 0.0,
    new: str = "",
) -> Draw:
    """24 groups whose rows are much alike. whole: splits are made of whole groups.

    own_class: all rows of a group are of one class. column: `group` for one that belongs to the groups (of a share
    `mistaken` of rows another value is noted), `row` for one that varies within them. new: new rows are those of some
    `groups`, or of these and some of other groups (`mixed`).
    """

    def draw(rng: np.random.Generator) -> Made:
        sizes = 3 + rng.geometric(0.1, GROUPS) if uneven else np.full(GROUPS, ROWS // GROUPS)
        group = np.repeat(np.arange(GROUPS), sizes)
        rows = len(group)
        truth = rng.integers(2, size=GROUPS)[group] if own_class else rng.integers(2, size=rows)
        x = features(rng, rows, truth) + 3 * features(rng, GROUPS)[group]
        of = splits(rng, GROUPS)[group] if whole else splits(rng, rows)
        value = rng.integers(2, size=GROUPS)[group] if column == "group" else rng.integers(2, size=rows)
        value = np.where(rng.random(rows) < mistaken, 1 - value, value)
        added = np.isin(group, rng.permutation(GROUPS)[: GROUPS // 4]) if new else None
        if added is not None and new == "mixed":
            added |= rng.random(rows) < 0.2
        return Made(
            x, of.tolist(), truth, _classes(2), {"column": [f"v{number}" for number in value]},
            [f"g{number}" for number in group], added,
        )  # fmt: skip

    return draw


def moved(draw: Draw, of: str, by: float, share: float = 1.0, spread: bool = False) -> Draw:
    """A share of the rows whose column has the value `of` moved by so many SD along five axes, or spread wider."""

    def drawn(rng: np.random.Generator) -> Made:
        made = draw(rng)
        (values,) = made.attributes.values()
        hit = (np.array(values) == of) & (rng.random(len(values)) < share)
        x = made.features.copy()
        if spread:
            x[hit] *= by
        else:
            x[hit, :5] += by * x[:, :5].std(axis=0)
        return replace(made, features=x)

    return drawn


def new_balance(rng: np.random.Generator) -> Made:
    """New rows hold the second class in 7 of 10 cases, former ones in 5 of 10."""
    added = rng.random(ROWS) < 0.4
    truth = (rng.random(ROWS) < np.where(added, 0.7, 0.5)).astype(np.int64)
    return Made(features(rng, ROWS, truth), [], truth, _classes(2), added=added)


NOTHING: Mapping[str, Setting] = {
    "two classes": Setting(by_rows()),
    "20 classes": Setting(by_rows(classes=20)),
    "a class of 4%": Setting(by_rows(rare=0.04)),
    "labels, several a row": Setting(by_rows(task="multilabel")),
    "numbers": Setting(by_rows(task="regression")),
    "a column of 7 values": Setting(by_rows(sites=7)),
    "20 test rows": Setting(by_rows(test=0.085)),
    "new rows": Setting(by_rows(new=True)),
    "groups: whole in a split": Setting(by_groups()),
    "groups of 4 to 50 rows": Setting(by_groups(uneven=True)),
    "groups of one class each": Setting(by_groups(own_class=True)),
    "groups: in all splits": Setting(by_groups(whole=False, column="row")),
    "groups: a column with 3% mistakes": Setting(by_groups(mistaken=0.03)),
    "groups: new ones": Setting(by_groups(new="groups")),
    "groups: new ones, and new rows of others": Setting(by_groups(new="mixed")),
}
"""Where nothing has moved."""

SITES, HALVES = by_rows(), by_groups(column="row")
SOMETHING: Mapping[str, Setting] = {
    "a site moved by 0.5 SD": Setting(moved(SITES, "s0", 0.5), "site s0"),
    "a site moved by 0.2 SD": Setting(moved(SITES, "s0", 0.2), "site s0"),
    "a third of a site by 2 SD": Setting(moved(SITES, "s0", 2.0, share=1 / 3), "site s0"),
    "a site spread by half more": Setting(moved(SITES, "s0", 1.5, spread=True), "site s0"),
    "new rows in another balance": Setting(new_balance),
    "half of 24 groups moved by 1 SD": Setting(moved(by_groups(), "v1", 1.0), "column"),
    "half of each group by 0.2 SD": Setting(moved(HALVES, "v1", 0.2), "column"),
    "half of each group by 0.5 SD": Setting(moved(HALVES, "v1", 0.5), "column"),
}
"""Where something has."""


def measured(name: str, setting: Setting, sets: int) -> dict[str, Any]:
    """How many of so many data sets alarm and warn, and how many comparisons they had at most."""
    alarms = warnings = most = 0
    for number in range(sets):
        made = setting.draw(np.random.default_rng([zlib.crc32(name.encode()), number]))
        tests = made.compared(number)
        asked = [test for test in tests if test.name.startswith(setting.where)]
        alarms += any(claim in test.text for test in asked for claim in CLAIMS)
        warnings += any(test.state == "warn" for test in asked)
        most = max(most, len(tests))
    return {"sets": sets, "alarms": alarms, "warnings": warnings, "comparisons": most}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=400, help="of each setting; a quarter where something has moved")
    parser.add_argument("--only", nargs="+", choices=[*NOTHING, *SOMETHING], help="measured anew")
    parser.add_argument("--render", action="store_true", help="write the page from the results; measure nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kept: dict[str, Any] = read_json(PATH) if PATH.is_file() else {}
    for settings, sets in ((NOTHING, arguments.sets), (SOMETHING, max(1, arguments.sets // 4))):
        for name, setting in settings.items() if not arguments.render else ():
            if name in arguments.only if arguments.only else name not in kept:
                kept[name] = measured(name, setting, sets)
                write_json(PATH, kept)
                write_text(PATH.with_suffix(".md"), page(kept))
                print(name, kept[name], flush=True)
    write_text(PATH.with_suffix(".md"), page(kept))


def page(kept: Mapping[str, Any]) -> str:
    """Both tables as Markdown; settings that were not measured are left out."""
    lines = [
        "# What shift() claims where nothing has moved, and where something has",
        "",
        "Made by `python -m benchmarks.evaluation.shift_alarms`, whose docstring says how. In brackets: 95% intervals.",
        "",
        "## Nothing has moved",
        "",
        f"All comparisons together are to alarm in at most {PROMISED:.0%} of the sets.",
        "",
        *_table(kept, NOTHING, "alarms"),
        "",
        *_verdict(kept),
        "",
        "## Something has",
        "",
        "How often that comparison alarms.",
        "",
        *_table(kept, SOMETHING, "found"),
    ]
    return "\n".join(lines) + "\n"


def _table(kept: Mapping[str, Any], settings: Mapping[str, Setting], title: str) -> list[str]:
    lines = [f"| setting | comparisons | sets | {title} | warned |", "|---|---|---|---|---|"]
    for name in settings:
        if name in kept:
            one = kept[name]
            alarms, warnings = (_share(one[key], one["sets"]) for key in ("alarms", "warnings"))
            lines.append(f"| {name} | {one['comparisons']} | {one['sets']} | {alarms} | {warnings} |")
    return lines


def _share(count: int, sets: int) -> str:
    low, high = wilson(count / sets, sets, 0.95)
    return f"{count / sets:.1%} ({low:.1%} to {high:.1%})"


def _verdict(kept: Mapping[str, Any]) -> list[str]:
    above = [
        name for name in NOTHING
        if name in kept and wilson(kept[name]["alarms"] / kept[name]["sets"], kept[name]["sets"], 0.95)[0] > PROMISED
    ]  # fmt: skip
    return [f"Surely above {PROMISED:.0%}: {'; '.join(above) or 'none'}."]


if __name__ == "__main__":
    main()
