"""How often `tl monitor` raises a false alarm, how often it sees planted drift, and how well it foretells accuracy.

    OMP_NUM_THREADS=1 python -m benchmarks.retraining.monitor [--looks 200] [--planted 60] [--data FOLDER] [--only SET]
    python -m benchmarks.retraining.monitor --render

A real set of each modality. For every look its rows are dealt anew: 300 to train a probe (refitted on all it has
seen, as the product does), 100 to validate it, and of the others 30, 100 or 300 are the new rows, which `drift` judges
by what a bundle keeps. Equal: the new rows are what was dealt. Planted: a tenth or three tenths of them come from
another set of the modality; or half of the classes are four times as frequent as the others; or all are corrupted
(severity 3). FOLDER (default: $TL_SHARED_DATA or ../shared/data) holds datasets/ and weights/; features are kept in
.tl/benchmarks/evaluation. Grouped: made-up rows in groups of 10 that are much alike, judged with and without knowing
the groups. Results: benchmarks/results/retraining_monitor.{json,md}, written after each set; a set that is there is
not run again. Some ten minutes of a core.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.evaluation.material import SETS, Material, embedded, material
from benchmarks.selection.setting import RESULTS, ROOT
from tl_core.config import TuneConfig
from tl_core.diagnostics.drift import drift
from tl_core.diagnostics.drift_result import Drift
from tl_core.heads import linear_heads
from tl_core.held import Held
from tl_core.intervals import wilson
from tl_core.reference import Reference, unit
from tl_core.registry import load_registry
from tl_core.training.probe import fit_probe
from tl_core.types import Targets
from tl_core.weights import read_json
from tl_core.workspace import write_json, write_text

PATH = RESULTS / "retraining_monitor.json"
FOREIGN = {"caltech20": "hymenoptera", "trec6": "banking77", "fsdd": "esc10"}
TRAIN, VAL, SIZES = 300, 100, (30, 100, 300)
PROMISED = 0.05
SHARES = (0.1, 0.3)  # of foreign rows
FEW: dict[str, Any] = {"permutations": 250, "resamples": 50}  # of an interval: alarms go by permutations
GROUPED = "made-up rows in groups of 10"
Looks = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, eq=False)
class Model:
    """A probe with its reference. answer: decoded predictions [N, C] of features [N, D]."""

    targets: Targets
    reference: Reference
    answer: Callable[[np.ndarray], np.ndarray]


def trained(of: Material, train: np.ndarray, val: np.ndarray) -> Model:
    """A probe as `tl tune` makes it, and what its bundle keeps."""
    spec = next(head for head in linear_heads(of.modality) if head.task == of.targets.task)
    x, y = torch.from_numpy(of.features), torch.from_numpy(of.truth)
    head = spec.build(x.shape[1], of.targets)
    fit = fit_probe(
        x[train], y[train], x[val], y[val], head, spec, of.targets, TuneConfig().strengths, True, calibrate=True
    )  # fmt: skip
    with torch.no_grad():
        said = fit.head.decode(fit.val_logits).numpy()
    held = Held.of(unit(of.features[val]), said, of.truth[val], of.targets.task, None)
    reference = dataclasses.replace(Reference.of(of.features[train], of.features[val]), held=held)

    def answer(features: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            made: np.ndarray = fit.head.decode(fit.head(torch.from_numpy(features))).numpy()
        return made

    return Model(of.targets, reference, answer)


def look(model: Model, features: np.ndarray, seed: int) -> Drift:
    """What the product says of new rows."""
    ids = [str(row) for row in range(len(features))]
    return drift(model.reference, features, model.answer(features), model.targets, ids, frozen=True, seed=seed, **FEW)


def looks_at(of: Material, foreign: np.ndarray, looks: int, planted: int) -> Looks:
    """Every look at a set, by what was done to the new rows."""
    found: Looks = {}
    for seed in range(looks):
        rng = np.random.default_rng(seed)
        dealt = rng.permutation(len(of.truth))
        train, val, rest = np.split(dealt, [TRAIN, TRAIN + VAL])
        model = trained(of, train, val)
        for size in SIZES:
            new = rest[:size]
            keep(found, f"equal, {size}", model, of.features[new], seed, of.truth[new])
            if seed >= planted:
                continue
            for share in SHARES:
                count = round(share * size)
                mixed = np.concatenate([of.features[new[count:]], foreign[rng.permutation(len(foreign))[:count]]])
                keep(found, f"{share:.0%} foreign, {size}", model, mixed, seed)
            odds = np.where(of.truth[rest] < len(of.targets.classes) / 2, 4.0, 1.0)
            skewed = rest[rng.choice(len(rest), min(size, len(rest) // 2), replace=False, p=odds / odds.sum())]
            keep(found, f"other class mix, {size}", model, of.features[skewed], seed, of.truth[skewed])
            fresh = np.isin(of.copied, rest)
            harmed = rng.permutation(np.flatnonzero(fresh))[:size]
            if size == SIZES[0]:
                truth = of.truth[of.copied[harmed]]
                keep(found, f"{of.corruption}, {size}", model, of.harmed[harmed], seed, truth)
    return found


def keep(
    found: Looks, name: str, model: Model, features: np.ndarray, seed: int, truth: np.ndarray | None = None
) -> None:
    """Judge, and note the state, and the accuracy that was foretold beside the true one."""
    said = look(model, features, seed)
    facts: dict[str, Any] = {"state": said.state, "rows": len(features)}
    if truth is not None and said.accuracy is not None:
        right = float((model.answer(features).argmax(axis=1) == truth).mean())
        facts |= {"foretold": said.accuracy.value, "right": right, "held_out": said.known_accuracy}
        facts["inside"] = said.accuracy.low <= right <= said.accuracy.high
    found.setdefault(name, []).append(facts)


def grouped(looks: int) -> Looks:
    """Made-up rows: 30 training, 12 validation and 12 new groups of 10, each with a place of its own."""
    found: Looks = {}
    targets = Targets("multiclass", ("a", "b"))
    for seed in range(looks):
        rng = np.random.default_rng(seed)
        of = np.repeat(np.arange(54), 10)
        x = (rng.normal(size=(54, 24))[of] + rng.normal(size=(540, 24))).astype(np.float32)
        p = 1 / (1 + np.exp(-x[:, :1]))
        said = np.concatenate([1 - p, p], axis=1).astype(np.float32)
        names = [str(group) for group in of]
        train, val, new = slice(0, 300), slice(300, 420), slice(420, 540)
        truth = np.zeros(120, np.int64)
        for name, known in (("groups known", True), ("groups not known", False)):
            held = Held.of(unit(x[val]), said[val], truth, "multiclass", names[val] if known else None)
            reference = dataclasses.replace(Reference.of(x[train], x[val]), held=held)
            result = drift(
                reference, x[new], said[new], targets, names[new], frozen=False, groups=names[new] if known else None,
                seed=seed, **FEW,
            )  # fmt: skip
            found.setdefault(f"equal, 120, {name}", []).append({"state": result.state, "rows": 120})
    return found


def summary(looks: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts over looks of one kind."""
    judged = [one for one in looks if "foretold" in one]
    facts: dict[str, Any] = {
        "looks": len(looks),
        "rows": round(float(np.mean([one["rows"] for one in looks])), 1),
        "alarms": sum(one["state"] == "drift" for one in looks),
        "too_few": sum(one["state"] == "too few" for one in looks),
    }
    if judged:
        off = [one["foretold"] - one["right"] for one in judged]
        facts |= {
            "right": round(float(np.mean([one["right"] for one in judged])), 4),
            "foretold": round(float(np.mean([one["foretold"] for one in judged])), 4),
            "held_out": round(float(np.mean([one["held_out"] for one in judged])), 4),
            "off": round(float(np.abs(off).mean()), 4),
            "inside": sum(one["inside"] for one in judged),
            "judged": len(judged),
        }
    return facts


def render(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The tables as Markdown."""
    lines = [
        "# How often `tl monitor` raises an alarm",
        "",
        f"`python -m benchmarks.retraining.monitor`, at the default false-alarm rate of {PROMISED:.0%} over all tests "
        f"of a look. A probe on {TRAIN} rows, {VAL} validation rows; each look deals the rows anew. In brackets the "
        "95% interval of the rate (Wilson). Where there is no alarm, the answer is *no sign of drift* or *too few to "
        "tell*, which has a column of its own.",
        "",
        "## Equal data: false alarms",
        "",
        "| set | new rows | alarms | too few to tell | within |",
        "|---|---|---|---|---|",
    ]
    for name, kinds in found.items():
        for kind, one in _ordered(kinds):
            if kind.startswith("equal"):
                holds = wilson(one["alarms"] / one["looks"], one["looks"], 0.95)[0] <= PROMISED
                cells = (kind.removeprefix("equal, "), _rate(one), f"{one['too_few']:,}", "yes" if holds else "no")
                lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Within: the rate may be {PROMISED:.0%}, as the interval's lower end says. In groups that nobody names, rows "
        "that are alike look like drift: that is what `--group` is for.",
        "",
        "## Planted drift: alarms",
        "",
        "| set | planted, new rows | alarms | too few to tell |",
        "|---|---|---|---|",
    ]
    for name, kinds in found.items():
        rows = [(kind, one) for kind, one in _ordered(kinds) if not kind.startswith("equal")]
        lines += [f"| {name} | {kind} | {_rate(one)} | {one['too_few']:,} |" for kind, one in rows]
    lines += [
        "",
        "## Expected accuracy",
        "",
        "Means over the looks at which it was told: never where surely more rows than expected are unlike the training "
        "rows. *Off* is the mean distance of the expected accuracy from the true one of the same rows.",
        "",
        "| set | new rows | on held-out rows | expected | true | off | true one in the 95% interval |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, kinds in found.items():
        for kind, one in _ordered(kinds):
            if "foretold" in one:
                means = [f"{one[key]:.1%}" for key in ("held_out", "foretold", "right", "off")]
                inside = f"{one['inside'] / one['judged']:.0%} of {one['judged']}"
                lines.append(f"| {name} | {kind} | {' | '.join(means)} | {inside} |")
    return "\n".join([*lines, ""])


def _ordered(kinds: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """By what was planted, then by the number of new rows."""
    return sorted(kinds.items(), key=lambda item: (item[0].partition(",")[0], round(item[1]["rows"], -1), item[0]))


def _rate(one: dict[str, Any]) -> str:
    low, high = wilson(one["alarms"] / one["looks"], one["looks"], 0.95)
    return f"{one['alarms'] / one['looks']:.1%} of {one['looks']:,} ({low:.1%} to {high:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--looks", type=int, default=200)
    parser.add_argument("--planted", type=int, default=60)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("TL_SHARED_DATA", ROOT.parent / "shared/data"))
    )
    parser.add_argument("--cache", type=Path, default=ROOT / ".tl" / "benchmarks" / "evaluation")
    parser.add_argument("--only", nargs="*", choices=[*FOREIGN, GROUPED], default=[*FOREIGN, GROUPED])
    parser.add_argument("--render", action="store_true")
    arguments = parser.parse_args()
    found: dict[str, Any] = read_json(PATH) if PATH.is_file() else {}
    for name in [] if arguments.render else [one for one in arguments.only if one not in found]:
        if name == GROUPED:
            looks = grouped(arguments.looks)
        else:
            registry = load_registry()
            of = material(name, arguments.data, arguments.cache, registry)
            other = embedded(FOREIGN[name], arguments.data, arguments.cache, registry)
            assert SETS[name][1] == of.backbone
            looks = looks_at(of, other.features, arguments.looks, arguments.planted)
        found[name] = {kind: summary(each) for kind, each in looks.items()}
        write_json(PATH, found)
        write_text(PATH.with_suffix(".md"), render(found))
        print(name, found[name], flush=True)
    write_text(PATH.with_suffix(".md"), render(found))


if __name__ == "__main__":
    main()
