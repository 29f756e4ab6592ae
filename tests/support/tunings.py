"""tune.json as `tl tune` writes it, for the tests of what shows it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

STRENGTHS = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)


def candidate(strategy: str, value: float, **more: Any) -> dict[str, Any]:
    """A strategy that was tried, by default the one that leads."""
    return {
        "strategy": strategy, "status": "tried", "reason": None, "value": value, "low": round(value - 0.02, 4),
        "high": round(value + 0.02, 4), "gap": 0.0, "gap_low": 0.0, "gap_high": 0.0, "p_best": 0.9, "log_loss": 0.21,
        "gflops": 5200.0,
    } | more  # fmt: skip


def skipped(strategy: str, reason: str) -> dict[str, Any]:
    """A strategy that was not tried."""
    none = dict.fromkeys(("value", "low", "high", "gap", "gap_low", "gap_high", "p_best", "log_loss", "gflops"))
    return none | {"strategy": strategy, "status": "skipped", "reason": reason}


def decision(**more: Any) -> dict[str, Any]:
    """auto that took lp_ft."""
    return {
        "chosen": "lp_ft", "rows": 412, "folds": 1, "confidence": 0.9,
        "why": "fine-tuning pays: lp_ft 0.930 against 0.899 of the probe on 412 held-out rows, log loss "
               "0.212 against 0.298",
        "candidates": [
            candidate("probe", 0.899, gap=0.031, gap_low=0.012, gap_high=0.05, p_best=0.01, log_loss=0.298, gflops=0.0),
            candidate("lp_ft", 0.93, p_best=0.82),
            candidate("finetune", 0.921, gap=0.009, gap_low=-0.006, gap_high=0.024, p_best=0.17),
        ],
    } | more  # fmt: skip


def probe(**more: Any) -> dict[str, Any]:
    """A path whose middle is best on validation."""
    path = [
        {"strength": s, "train": round(0.82 + 0.018 * k, 4), "val": round(0.912 - 0.0022 * (k - 5) ** 2, 4),
         "val_loss": round(0.31 + 0.006 * (k - 5) ** 2, 4)}
        for k, s in enumerate(STRENGTHS)
    ]  # fmt: skip
    return {"strength": 3.0, "refit": True, "path": path} | more


def finetune(epochs: int = 9, best: int = 6, **more: Any) -> dict[str, Any]:
    """A fine-tuning that was best before its end."""
    history = [
        {"epoch": e, "loss": round(1.4 / e + 0.03, 4), "train": round(0.99 - 0.3 / e, 4),
         "val_loss": round(0.9 / e + 0.02 * max(0, e - best) + 0.2, 4),
         "val": round(0.93 - 0.18 / e + 0.18 / best - 0.004 * max(0, e - best), 4),
         "lr": 1e-4 * 0.5 * (1 + math.cos(math.pi * e / (epochs + 1)))}
        for e in range(1, epochs + 1)
    ]  # fmt: skip
    return {
        "best_epoch": best, "trained_segments": ["layer3", "layer4"], "trained_parameters": 22_063_104, "update": "all",
        "history": history, "stopped": "3 epochs without a better accuracy on validation", "precision": "bfloat16",
        "memory_batch": 32, "cut": {"name": "layer3", "bytes": 823_000_000, "rows": 2060, "views": 0},
        "cut_why": "an epoch from them takes an estimated 42% of one from the images", "found_lr": None, "wise": 1.0,
        "ema": 0.0,
    } | more  # fmt: skip


def contrastive(**more: Any) -> dict[str, Any]:
    """A tuning by pairs."""
    return {
        "trained_segments": ["layer.4", "layer.5"], "trained_parameters": 3_549_696, "update": "all",
        "losses": [0.21, 0.12, 0.08], "precision": "float32", "memory_batch": 32, "cut": None,
        "cut_why": "samples are augmented anew in every epoch", "wise": 1.0, "ema": 0.0,
    } | more  # fmt: skip


def found_lr() -> dict[str, Any]:
    """A range test: flat, falling, and blown up."""
    points = []
    for i in range(60):
        rate = 10 ** (-7 + 6.5 * i / 59)
        points.append([rate, round(1.6 - 0.9 / (1 + (3e-4 / rate) ** 1.5) + (rate / 0.02) ** 3, 4)])
    return {"lr": 0.00031, "points": points}


def search(**more: Any) -> dict[str, Any]:
    """A search that rose three times."""
    values = [0.84] * 3 + [0.881] * 9 + [0.9] * 14 + [0.912] * 14
    return {
        "trials": 40, "pruned": 12, "watch": "accuracy", "values": values,
        "best": {"settings": {"lr": 0.00032, "train_from": 2, "weight_decay": 0.05}, "value": 0.912},
        "importance": {"lr": 0.71, "train_from": 0.24, "weight_decay": 0.05},
    } | more  # fmt: skip


def curve(**more: Any) -> dict[str, Any]:
    """A learning curve that still rises."""
    measured = ((0.1, 206, 0.71), (0.2, 412, 0.792), (0.4, 824, 0.848), (0.7, 1442, 0.884), (1.0, 2060, 0.899))
    points = [
        {"share": share, "rows": rows, "value": value, "low": round(value - 0.03, 4), "high": round(value + 0.03, 4)}
        for share, rows, value in measured
    ]
    return {
        "points": points, "gain": 0.021, "gain_low": 0.008, "gain_high": 0.034, "verdict": "more data would help",
        "text": "more data would help: twice the rows are expected to change accuracy by +0.021 (+0.008 to +0.034)",
    } | more  # fmt: skip


def gap(**more: Any) -> dict[str, Any]:
    """A gap as most models have one."""
    return {
        "train": 0.953, "val": 0.912, "gap": 0.041, "low": 0.019, "high": 0.063, "memorised": False,
        "text": "accuracy is 0.953 on training rows and 0.912 on validation rows",
    } | more  # fmt: skip


def memorised_gap() -> dict[str, Any]:
    """Every training row right, and a third of the others wrong."""
    return gap(
        train=1.0, val=0.68, gap=0.32, low=0.27, high=0.37, memorised=True,
        text="accuracy is 1.000 on training rows and 0.680 on validation rows: 60% of what was gained over one answer "
             "for all (0.467) is lost on new rows, so the model has memorised its training rows",
    )  # fmt: skip


def tuning(**more: Any) -> dict[str, Any]:
    """A probe, as asked for."""
    return {
        "format": 2, "asked": "probe", "strategy": "probe", "watch": "accuracy", "validation": 0.912,
        "temperature": 1.31, "decision": None, "probe": probe(), "finetune": None, "search": None, "curve": curve(),
        "gap": gap(),
    } | more  # fmt: skip


def by_auto(**more: Any) -> dict[str, Any]:
    """auto fine-tuned from the probe."""
    return tuning(
        asked="auto", strategy="lp_ft", validation=0.93, decision=decision(), finetune=finetune(), temperature=0.87
    ) | more  # fmt: skip


def bare(**more: Any) -> dict[str, Any]:
    """As little as there can be."""
    return tuning(temperature=None, probe=None, curve=None, gap=None) | more


DEMOS: dict[str, dict[str, Any]] = {
    "probe": tuning(),
    "probe by auto": tuning(
        asked="auto",
        decision=decision(
            chosen="probe", folds=5, why="fine-tuning could not be tried",
            candidates=[
                candidate("probe", 0.912, gflops=0.0), skipped("lp_ft", "its trial would take about 48 min"),
                skipped("finetune", "its trial would take about 48 min"),
            ],
        ),
    ),
    "lp_ft by auto": by_auto(),
    "finetune, rate found": tuning(
        asked="finetune", strategy="finetune", probe=None,
        finetune=finetune(found_lr=found_lr(), cut=None, wise=0.7, ema=0.999, update="lora",
                          cut_why="all segments train, so there is nothing to store"),
        curve=curve(verdict="can't tell", gain=0.004, gain_low=-0.011, gain_high=0.019,
                    text="can't tell: twice the rows are expected to change accuracy by +0.004 (-0.011 to +0.019)"),
    ),
    "search": tuning(search=search()),
    "memorised": tuning(
        asked="finetune", strategy="finetune", finetune=finetune(), gap=memorised_gap(), temperature=2.4
    ),
    "contrastive": tuning(asked="contrastive", strategy="contrastive", contrastive=contrastive()),
    "bare": bare(),
}  # fmt: skip


def write(value: dict[str, Any], path: Path) -> Path:
    """The tuning as a file."""
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
    return path
