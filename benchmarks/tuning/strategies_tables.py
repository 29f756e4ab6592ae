"""The tables of benchmarks.tuning.strategies: what strategies reach, what auto loses, how they bear a shift."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from tl_core.selection.outcomes import Outcomes
from tl_core.selection.standing import standings
from tl_core.training.trial import choose, log_loss

Runs = list[Mapping[str, Any]]
MOST = 64  # labels of each class where a cell is called "all"


def page(kept: Mapping[str, Any], changed: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page, Markdown. changed: sets whose `tune` was not all defaults, with what differed."""
    cells: dict[str, Runs] = {}
    for key, run in sorted(kept.items()):
        cell, _, draw = key.rpartition(" draw ")
        cells.setdefault(cell, []).append({**run, "auto": {"chosen": chosen(run["auto"], int(draw))}})
    plain = {name: runs for name, runs in cells.items() if "test" in runs[0]}
    shifts = {name: runs for name, runs in cells.items() if "outside" in runs[0]}
    seconds = sum(run["seconds"] for run in kept.values())
    parts = [
        "# Strategies",
        f"{len(kept)} runs, {seconds / 60:.0f} minutes in all. What auto takes is by its present rule, "
        "from the held-out predictions that each run has kept.",
    ]
    if plain:
        parts += [*_differences(changed), strategies_table(plain)]
    if shifts:
        parts += ["## Under shift", shift_table(shifts)]
    return "\n\n".join(parts) + "\n"


def chosen(auto: Mapping[str, Any], seed: int) -> str:
    """What auto's present rule takes by the held-out predictions that are kept."""
    held = auto["held"]
    rows, place, count = np.unique(held["rows"], return_inverse=True, return_counts=True)
    history, losses = {}, {}
    for name in held:
        if name != "rows":
            losses[name] = log_loss(np.array(held[name]["true"]))
            right = np.bincount(place, [float(r) for r in held[name]["right"]], len(rows)) / count
            history[name] = [Outcomes("multiclass", right[:, None])]
    return choose(standings(history, confidence=auto["confidence"], seed=seed), losses)


def strategies_table(cells: Mapping[str, Runs]) -> str:
    """Test accuracy by cell: mean and standard deviation over draws; what auto takes, and how far behind that is."""
    names = list(next(iter(cells.values()))[0]["test"])
    lines = [
        "Accuracy on test rows, mean ± standard deviation over draws. Shortfall: the best strategy's mean less auto's, "
        "in points with its standard error over draws (of the same rows), and in standard deviations of the best "
        "strategy over draws.",
        "",
        f"| set | labels a class | draws | rows | {' | '.join(names)} | auto | takes | shortfall | in sd |",
        "|---" * (8 + len(names)) + "|",
    ]
    worst = 0.0
    for cell, runs in sorted(cells.items(), key=lambda item: _order(item[0])):
        dataset, _, size = cell.rpartition(" ")
        scores = {name: np.array([run["test"][name] for run in runs]) for name in names}
        auto = np.array([run["test"][run["auto"]["chosen"]] for run in runs])
        best = max(names, key=lambda name: scores[name].mean())
        short, spread = float(scores[best].mean() - auto.mean()), _sd(scores[best])
        ratio = 0.0 if short <= 0 else short / spread if spread > 0 else np.inf
        told = f"{ratio:.2f}" if len(runs) > 1 else "one draw"
        behind = scores[best] - auto
        error = f" ± {100 * _sd(behind) / np.sqrt(len(runs)):.1f}" if len(runs) > 1 else ""
        worst = max(worst, ratio) if len(runs) > 1 else worst
        takes = Counter(run["auto"]["chosen"] for run in runs)
        said = ", ".join(f"{name} {count}" for name, count in takes.most_common())
        columns = " | ".join(_spread(scores[name], bold=name == best) for name in names)
        lines.append(
            f"| {dataset} | {_labels(size)} | {len(runs)} | {runs[0]['rows']} | {columns} | {_spread(auto)} | {said} "
            f"| {100 * short:.1f}{error} | {told} |"
        )
    if any(len(runs) > 1 for runs in cells.values()):
        lines += ["", f"Largest shortfall where there are several draws: {worst:.2f} standard deviations."]
    return "\n".join(lines)


def shift_table(cells: Mapping[str, Runs]) -> str:
    """Accuracy in the training rows' domain and outside of it by recipe, means over draws."""
    names = [*next(iter(cells.values()))[0]["outside"], "auto"]
    lines = [
        "Accuracy inside / outside the training rows' domain, mean ± standard deviation over draws.",
        "",
        f"| set | draws | {' | '.join(names)} | auto takes |",
        "|---" * (3 + len(names)) + "|",
    ]
    for cell, runs in sorted(cells.items()):
        columns = []
        for name in names:
            taken = [name if name != "auto" else run["auto"]["chosen"] for run in runs]
            inside, outside = (
                np.array([run[part][one] for run, one in zip(runs, taken, strict=True)])
                for part in ("inside", "outside")
            )
            columns.append(f"{_spread(inside)} / {_spread(outside)}")
        takes = Counter(run["auto"]["chosen"] for run in runs)
        said = ", ".join(f"{name} {count}" for name, count in takes.most_common())
        lines.append(f"| {cell} | {len(runs)} | {' | '.join(columns)} | {said} |")
    return "\n".join(lines)


def _differences(changed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What was not as by default, a paragraph, where anything was."""
    told = [
        f"{name} ({', '.join(f'`tune.{key}={str(value).lower()}`' for key, value in tune.items())})"
        for name, tune in changed.items()
    ]
    return [f"Not all settings are the defaults, for the sake of time: {'; '.join(told)}."] if told else []


def _labels(size: str) -> str:
    return f"all, at most {MOST}" if size == "all" else size


def _order(cell: str) -> tuple[str, int]:
    dataset, _, size = cell.rpartition(" ")
    return dataset, int(size) if size.isdigit() else 1000


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _spread(values: np.ndarray, bold: bool = False) -> str:
    text = f"{100 * values.mean():.1f} ± {100 * _sd(values):.1f}"
    return f"**{text}**" if bold else text
