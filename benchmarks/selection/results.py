"""Rankings against the truth: tau, regret, cost, decoys and ties, as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import weightedtau

from benchmarks.selection.setting import CASES, RESULTS, Case
from tl_core.selection.scores import consensus

DRAWS = 2000
RULES: dict[str, str] = {
    "tl": "`tl select`, first in the ranking",
    "chosen": "`tl select`, chosen (the cheapest of the tied)",
    "all_layers": "a probe on all layers, on all rows",
    "probe": "a probe on the embedding, on all rows",
    "logme": "LogME",
    "h_score": "H-score",
    "consensus": "consensus of LogME and H-score",
    "knn": "kNN",
    "nleep": "N-LEEP",
    "params": "the largest network",
}


def load_truth() -> dict[str, dict[str, Any]]:
    """Runs by set: `NAME seed N` to accuracy, right, cpu_seconds."""
    return json.loads((RESULTS / "selection_truth.json").read_text())  # type: ignore[no-any-return]


class Truth:
    """One set's fine-tunings: names of the candidates and, per candidate, the share of seeds that got a row right."""

    def __init__(self, case: Case, runs: Mapping[str, Any]) -> None:
        per_name: dict[str, list[Any]] = {}
        for key, run in runs.items():
            per_name.setdefault(key.rpartition(" seed ")[0], []).append(run)
        self.case = case
        self.names = [
            n for n in (f"{b}{'' if t is None else ' (random)'}" for b, t in case.candidates) if n in per_name
        ]
        self.seeds = min(len(per_name[name]) for name in self.names)
        self.right = np.array(
            [np.mean([[c == "1" for c in r["right"]] for r in per_name[n]], axis=0) for n in self.names]
        )
        self.spread = np.array(
            [np.std([r["accuracy"] for r in per_name[n]], ddof=1) if self.seeds > 1 else np.nan for n in self.names]
        )
        self.cpu_seconds = sum(min(r["cpu_seconds"] for r in per_name[n]) for n in self.names)
        self.params = np.array([per_name[n][0]["params"] for n in self.names], float)

    @property
    def accuracy(self) -> np.ndarray:
        """Mean test accuracy [K] after fine-tuning."""
        mean: np.ndarray = self.right.mean(axis=1)
        return mean

    def draws(self, rng: np.random.Generator) -> np.ndarray:
        """Accuracies [DRAWS, K] on resampled test rows, the same rows for all candidates."""
        n = self.right.shape[1]
        weights = rng.multinomial(n, np.full(n, 1 / n), DRAWS) / n
        drawn: np.ndarray = weights @ self.right.T
        return drawn


def orders(truth: Truth, found: Mapping[str, Any]) -> dict[str, list[np.ndarray]]:
    """By rule: predicted scores [K] of the truth's candidates, higher is better, one array per ranking seed."""
    titles = [title(name) for name in truth.names]
    full = found["full"]
    by_rule: dict[str, list[np.ndarray]] = {"tl": []}
    for ranking in found["rankings"]:
        ranks = {c["name"]: c["rank"] or len(titles) for c in ranking["candidates"]}
        by_rule["tl"].append(-np.array([ranks[t] for t in titles], float))
    for rule in ("all_layers", "probe", "logme", "h_score", "knn", "nleep", "gbc"):
        if all(rule in full[t] for t in titles):
            by_rule[rule] = [np.array([full[t][rule] for t in titles])]
    agreed = consensus({t: {rule: full[t][rule] for rule in ("logme", "h_score")} for t in titles})
    by_rule["consensus"] = [np.array([agreed[t] for t in titles])]
    by_rule["params"] = [truth.params]
    return by_rule


def title(name: str) -> str:
    """The truth's name of a candidate as the contest's."""
    return f"contest-{name.replace(':', '-first')}"


def regret(accuracy: np.ndarray, scores: np.ndarray, k: int) -> np.ndarray:
    """Points lost by taking the best of the first k, for accuracies [..., K]."""
    first = np.argsort(-scores, kind="stable")[:k]
    lost: np.ndarray = 100 * (accuracy.max(axis=-1) - accuracy[..., first].max(axis=-1))
    return lost


def tau(accuracy: np.ndarray, scores: np.ndarray) -> float:
    """Kendall's tau, weighted towards the top."""
    return float(weightedtau(accuracy, scores)[0])


def summarise(found: Mapping[str, Any], truth: Truth) -> dict[str, Any]:
    """One set's numbers by rule, with what the test rows' resampling leaves open."""
    rng = np.random.default_rng(0)
    draws = truth.draws(rng)
    pretrained = np.array([not n.endswith("(random)") for n in truth.names])
    rules: dict[str, Any] = {}
    for rule, scores in orders(truth, found).items():
        one = [regret(truth.accuracy, s, 1) for s in scores]
        many = np.mean([regret(draws, s, 1) for s in scores], axis=0)
        third = np.mean([regret(draws, s, 3) for s in scores], axis=0)
        taus = np.array([[tau(d, s) for d in draws[:200]] for s in scores]).mean(axis=0)
        rules[rule] = {
            "tau": float(np.mean([tau(truth.accuracy, s) for s in scores])),
            "tau_draws": taus,
            "tau_pretrained": float(np.mean([tau(truth.accuracy[pretrained], s[pretrained]) for s in scores])),
            "regret1": float(np.mean(one)),
            "regret1_draws": many,
            "regret3": float(np.mean([regret(truth.accuracy, s, 3) for s in scores])),
            "regret3_draws": third,
        }
    picked = [truth.names.index(n) for r in found["rankings"] for n in truth.names if title(n) == r["chosen"]]
    lost = 100 * (truth.accuracy.max() - truth.accuracy[picked])
    rules["chosen"] = {
        "regret1": float(lost.mean()),
        "regret1_draws": 100 * (draws.max(axis=1, keepdims=True) - draws[:, picked]).mean(axis=1),
    }
    twins = {title(n) for n in truth.names if n.endswith("(random)")}
    return {
        "rules": rules,
        "cost": found["cpu_seconds"] / truth.cpu_seconds,
        "decoys": sum(r["chosen"] in twins for r in found["rankings"]),
        "rankings": len(found["rankings"]),
        "ties": ties(found, truth, draws),
    }


def ties(found: Mapping[str, Any], truth: Truth, draws: np.ndarray) -> dict[str, int]:
    """Of the first ranking: candidates beside the leader, by what tl says and by what the test rows can tell."""
    candidates = {c["name"]: c for c in found["rankings"][0]["candidates"]}
    leader = next(i for i, n in enumerate(truth.names) if candidates[title(n)]["rank"] == 1)
    counts = {"tied, within noise": 0, "tied, apart": 0, "behind, within noise": 0, "behind, apart": 0}
    for i, name in enumerate(truth.names):
        if i == leader:
            continue
        low, high = np.quantile(draws[:, leader] - draws[:, i], [0.05, 0.95])
        said = "tied" if candidates[title(name)]["tied"] else "behind"
        counts[f"{said}, {'within noise' if low <= 0 <= high else 'apart'}"] += 1
    return counts


def write(kept: Mapping[str, Any], truth_runs: Mapping[str, Any]) -> None:
    """selection.md and selection.svg."""
    truths = {name: Truth(CASES[name], truth_runs[name]) for name in kept["cases"]}
    cases = {name: summarise(found, truths[name]) for name, found in kept["cases"].items()}
    text = "\n\n".join([
        "# The ranking against fine-tuning",
        f"{len(cases)} sets, {min(t.seeds for t in truths.values())} fine-tuning seeds, "
        f"{min(c['rankings'] for c in cases.values())} ranking seeds; intervals are 90%.",
        rules_table(cases),
        sets_table(cases, truths, kept),
        ties_table(cases),
        *(truth_table(name, truths[name], kept["cases"][name]) for name in cases),
        other_recipe(kept),
        "Machine: " + ", ".join(f"{k} {v}" for k, v in kept["machine"].items()),
    ])  # fmt: skip
    (RESULTS / "selection.md").write_text(text + "\n")
    print(text)


def other_recipe(kept: Mapping[str, Any]) -> str:
    """The same rankings against a second recipe, on the sets that it was run on."""
    runs = json.loads((RESULTS / "selection_truth_other_recipe.json").read_text())
    truths = {name: Truth(CASES[name], runs[name]) for name in kept["cases"] if name in runs}
    cases = {name: summarise(kept["cases"][name], truth) for name, truth in truths.items()}
    return "\n\n".join([
        "## Another recipe",
        "The head starts at zero instead of the probe, learning rates are three and ten times as high, batch-norm "
        "statistics are trained, 8 epochs. Seeds a set: "
        + ", ".join(f"{name} {truth.seeds}" for name, truth in truths.items()) + ".",
        rules_table(cases),
    ])  # fmt: skip


def mean_over_sets(cases: Mapping[str, Any], rule: str, key: str) -> tuple[float, float, float]:
    """Mean over sets, and the interval from resampling sets and, within them, test rows."""
    values = [c["rules"][rule][key] for c in cases.values()]
    draws = [c["rules"][rule][f"{key}_draws"] for c in cases.values()]
    rng = np.random.default_rng(1)
    means = [
        np.mean([draws[i][rng.integers(len(draws[i]))] for i in rng.integers(0, len(draws), len(draws))])
        for _ in range(DRAWS)
    ]
    low, high = np.quantile(means, [0.05, 0.95])
    return float(np.mean(values)), float(low), float(high)


def rules_table(cases: Mapping[str, Any]) -> str:
    """Tau and regret by rule, means over the sets."""
    lines = ["| rule | weighted tau | tau, pretrained only | regret@1, points | regret@3 |", "|---|---|---|---|---|"]
    rules = [r for r in RULES if all(r in c["rules"] for c in cases.values())]
    for rule in rules:
        cells = [RULES[rule]]
        if rule == "chosen":
            cells += ["", "", spread(mean_over_sets(cases, rule, "regret1")), ""]
        else:
            cells.append(spread(mean_over_sets(cases, rule, "tau"), 3))
            cells.append(f"{np.mean([c['rules'][rule]['tau_pretrained'] for c in cases.values()]):.3f}")
            cells += [spread(mean_over_sets(cases, rule, key)) for key in ("regret1", "regret3")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: tuple[float, float, float], digits: int = 2) -> str:
    value, low, high = values
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def sets_table(cases: Mapping[str, Any], truths: Mapping[str, Truth], kept: Mapping[str, Any]) -> str:
    """Set by set: tau, regret, cost, decoys."""
    lines = ["| set | candidates | tau | regret@1 | regret@3 | regret of the chosen | CPU s, ranking / fine-tuning all "
             "| cost | decoys chosen |", "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, case in cases.items():
        tl, truth = case["rules"]["tl"], truths[name]
        lines.append(
            f"| {name} | {len(truth.names)} | {tl['tau']:.3f} | {tl['regret1']:.2f} | {tl['regret3']:.2f} "
            f"| {case['rules']['chosen']['regret1']:.2f} "
            f"| {kept['cases'][name]['cpu_seconds']:.0f} / {truth.cpu_seconds:.0f} "
            f"| {100 * case['cost']:.1f}% | {case['decoys']} of {case['rankings']} |"
        )
    return "\n".join(lines)


def ties_table(cases: Mapping[str, Any]) -> str:
    """Whether "tied" is said where the truth is within noise."""
    total: dict[str, int] = {}
    for case in cases.values():
        for key, count in case["ties"].items():
            total[key] = total.get(key, 0) + count
    return "Candidates beside the leader, by what tl says and by whether the test rows tell them apart: " + "; ".join(
        f"{key}: {count}" for key, count in total.items()
    )


def truth_table(name: str, truth: Truth, found: Mapping[str, Any]) -> str:
    """One set's candidates: the truth, and the first ranking's words on them."""
    said = {c["name"]: c for c in found["rankings"][0]["candidates"]}
    lines = [f"## {name}", "",
             "| candidate | fine-tuned accuracy | over seeds | rank | probe | P(best) | tied | rows | cost, GFLOP |",
             "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for i in np.argsort(-truth.accuracy, kind="stable"):
        c = said[title(truth.names[i])]
        lines.append(
            f"| {truth.names[i]} | {truth.accuracy[i]:.3f} | {truth.spread[i]:.3f} | {c['rank']} | {c['probe']:.3f} "
            f"({c['probe_low']:.3f} to {c['probe_high']:.3f}) | {c['p_best']:.3f} | {'yes' if c['tied'] else ''} "
            f"| {c['rows']} | {c['flops'] / 1e9:.2f} |"
        )
    return "\n".join(lines)
