"""LogME at 50,000 x 768 and 100 classes, beside the algorithm as it is usually published.

    python -m benchmarks.selection.logme_speed [--rows 50000] [--dim 768] [--classes 100] [--repeats 5] [--threads 2]

The other one is a plain NumPy form of the published algorithm: a full decomposition of the features in float64, then
per class the fixed-point iteration in a loop. Runs are interleaved, medians count, and both must agree. Results:
benchmarks/results/logme_speed.md.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.end_to_end import RESULTS, machine
from tl_core.selection.scores import logme

GOAL = 3.0  # seconds
AGREE = 1e-6  # relative


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS / "logme_speed.md")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    features, targets = draw(arguments.rows, arguments.dim, arguments.classes)
    x, y = torch.from_numpy(features), torch.from_numpy(targets)
    contestants: dict[str, Callable[[], float]] = {
        "tl": lambda: logme(x, y, "multiclass"),
        "plain": lambda: plain(features, targets),
    }
    values: dict[str, float] = {}
    wall: dict[str, list[float]] = {name: [] for name in contestants}
    cpu: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(arguments.repeats):
        for name, run in contestants.items():
            started, burnt = time.perf_counter(), time.process_time()
            values[name] = run()
            wall[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - burnt)
            print(f"{number + 1}/{arguments.repeats} {name}: {wall[name][-1]:.2f} s", flush=True)
    if not math.isclose(values["tl"], values["plain"], rel_tol=AGREE):
        raise SystemExit(f"the two disagree: {values}")
    page = table(arguments, values, wall, cpu)
    arguments.results.write_text(page)
    print(page)


def draw(rows: int, dim: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [N, D] like a network's (correlated, a decaying spectrum, off zero) and classes int64 [N]."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, classes, rows)
    spectrum = np.arange(1, dim + 1, dtype=np.float32) ** -0.5
    mixing = np.linalg.qr(rng.normal(size=(dim, dim)))[0].astype(np.float32)
    centres = rng.normal(size=(classes, dim)).astype(np.float32)
    rows_of = rng.normal(size=(rows, dim)).astype(np.float32) + 0.5 * centres[targets]
    return (rows_of * spectrum) @ mixing + np.float32(0.1), targets


def plain(features: np.ndarray, targets: np.ndarray) -> float:
    """LogME by a full decomposition and a loop over classes. You et al., ICML 2021, arXiv:2102.11005."""
    f = features.astype(np.float64)
    n, d = f.shape
    u, s, _ = np.linalg.svd(f, full_matrices=False)
    energy = s**2
    evidences = []
    for label in range(int(targets.max()) + 1):
        y = (targets == label).astype(np.float64)
        explained = (u.T @ y) ** 2
        missed = float(y @ y) - float(explained.sum())
        alpha, beta = 1.0, 1.0
        for _ in range(200):
            ratio = alpha / beta
            gamma = float((energy / (energy + ratio)).sum())
            weights = float((energy * explained / (energy + ratio) ** 2).sum())
            residual = float((explained * (ratio / (energy + ratio)) ** 2).sum()) + missed
            alpha, beta = gamma / weights, (n - gamma) / residual
            if abs(alpha / beta - ratio) <= 1e-6 * ratio:
                break
        ratio = alpha / beta
        weights = float((energy * explained / (energy + ratio) ** 2).sum())
        residual = float((explained * (ratio / (energy + ratio)) ** 2).sum()) + missed
        log_det = d * math.log(alpha) + float(np.log1p(energy / ratio).sum())
        evidence = d * math.log(alpha) + n * math.log(beta) - n * math.log(2 * math.pi) - log_det
        evidences.append((evidence - beta * residual - alpha * weights) / (2 * n))
    return float(np.mean(evidences))


def table(
    arguments: argparse.Namespace, values: dict[str, float], wall: dict[str, list[float]], cpu: dict[str, list[float]]
) -> str:
    """The results as a Markdown page."""
    facts = ", ".join(f"{key} {value}" for key, value in machine().items())
    seconds = {name: statistics.median(times) for name, times in wall.items()}
    ratio = statistics.median(slow / fast for slow, fast in zip(wall["plain"], wall["tl"], strict=True))
    names = {"tl": "`tl_core.selection.logme`", "plain": "full float64 decomposition, loop over classes (NumPy)"}
    rows = [
        f"| {names[name]} | {seconds[name]:.2f} | {min(wall[name]):.2f} to {max(wall[name]):.2f} "
        f"| {statistics.median(cpu[name]):.2f} | {values[name]:.9f} |"
        for name in wall
    ]
    verdict = "met" if seconds["tl"] < GOAL else "missed"
    return "\n".join([
        f"# LogME: {arguments.rows:,} x {arguments.dim} float32, {arguments.classes} classes",
        "",
        f"{facts}; {arguments.threads} threads, load {os.getloadavg()[0]:.1f} at the end; "
        f"medians of {arguments.repeats} interleaved runs of `python -m benchmarks.selection.logme_speed`.",
        "",
        "| | seconds | range | CPU seconds | LogME |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"Ratio {ratio:.1f}. Goal: under {GOAL:.0f} s on two cores: {verdict}.",
        "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
