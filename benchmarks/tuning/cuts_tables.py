"""The page of benchmarks.tuning.cuts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any


def page(results: Mapping[str, Any]) -> str:
    """Tables of epoch times and of accuracies, as Markdown."""
    return "\n".join(["# Training from stored states", "", *_times(results["times"]), *_accuracy(results["accuracy"])])


def _times(times: Mapping[str, Any]) -> list[str]:
    if not times:
        return []
    lines = [
        "Epochs of the product's loop over 500 x 375 JPEG photos, decoding or reading, forward, backward and update",
        "included; medians of rounds in which the ways take turns, in one run. Random weights. In brackets the same in",
        "seconds of processors, which other programs on the machine hardly change.",
        "",
        "| network, what trains | precision | full fine-tuning | frozen prefix | stored states | of full, goal "
        "| of frozen, goal | filling the store, once |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for _, found in sorted(times.items()):
        clock, own = (_medians(found["seconds"][kind]) for kind in ("clock", "processor"))
        filling, goals = found["filling"], found["goals"]
        shares = [
            f"{clock['stored'] / clock[way]:.1%} ({own['stored'] / own[way]:.1%}), at most {goals[way]:.0%}"
            for way in ("full", "frozen")
        ]
        lines.append(
            f"| {found['subject']}, {found['trained']} | {found['precision']} "
            + "".join(f"| {clock[way]:.2f} s ({own[way]:.2f} s) " for way in ("full", "frozen", "stored"))
            + f"| {shares[0]} | {shares[1]} | {filling['seconds']:.1f} s, {filling['bytes'] / 1e6:.0f} MB |"
        )
    found = next(iter(times.values()))
    threads, processor = found["machine"].get("threads", "?"), found["machine"].get("cpu", "unknown processor")
    lines += ["", f"{found['rows']} photos, batches of {found['batch']}; {processor}, {threads} threads.", ""]
    return lines


def _medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    return {way: statistics.median(values) for way, values in seconds.items()}


def _accuracy(accuracy: Mapping[str, Any]) -> list[str]:
    if not accuracy:
        return []
    lines = [
        "The same training from raw samples and from stored states, real weights, by seed; the precision is the",
        "machine's own choice (`tune.precision: auto`).",
        "",
        "| set | network | segments trained | from raw samples | from stored states | means "
        "| test rows told otherwise |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in sorted(accuracy.items()):
        by_seed = [" ".join(f"{value:.3f}" for value in found[way]) for way in ("raw", "stored")]
        means = f"{found['mean']['raw']:.3f} and {found['mean']['stored']:.3f}"
        differ = " ".join(map(str, found["differ"]))
        lines.append(
            f"| {name} | {found['weights']} | {found['train_from']} | {by_seed[0]} | {by_seed[1]} | {means} "
            f"| {differ} of {found['rows']} |"
        )
    return [*lines, ""]
