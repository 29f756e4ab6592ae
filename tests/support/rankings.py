"""Rankings as `tl select` writes them, for the tests of what shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LICENCE = {"about": "licence", "text": "its licence (CC-BY-NC-4.0) allows no commercial use",
           "remedy": "for any such use choose one that `tl backbones image --licence permissive` lists"}  # fmt: skip
SMALL = {"about": "size", "text": "the images are about 96 px wide, it takes 224",
         "remedy": "prefer one with a smaller input"}  # fmt: skip


def candidate(name: str, rank: int, probe: float, **more: Any) -> dict[str, Any]:
    """A measured candidate, by default out of reach of the leader."""
    half = more.pop("half", 0.018)
    gap = more.pop("gap", max(0.0, round(0.951 - probe, 4)))
    return {
        "name": name, "status": "ranked", "reason": None, "rank": rank, "rank_low": rank, "rank_high": rank,
        "rows": 800, "probe": probe, "probe_low": round(probe - half, 4), "probe_high": round(min(1, probe + half), 4),
        "p_best": 0.0, "regret": gap, "gap": gap, "gap_low": round(gap - 0.012, 4), "gap_high": round(gap + 0.012, 4),
        "tied": False, "scores": {}, "flops": 1_000_000_000, "params": 5_000_000, "feature_dim": 1280,
        "licence": "Apache-2.0", "licence_kind": "permissive", "source": "hub", "fingerprint": "9b" * 32,
        "revision": None, "base": None, "cut": None, "warnings": [],
    } | more  # fmt: skip


def dropped(name: str, reason: str, **more: Any) -> dict[str, Any]:
    """A candidate that could not be measured."""
    facts = candidate(name, 0, 0.0)
    numbers = ("rank", "rows", "probe", "p_best", "regret", "gap", "rank_low", "rank_high", "probe_low", "probe_high",
               "gap_low", "gap_high", "flops", "params", "fingerprint")  # fmt: skip
    return {**facts, **dict.fromkeys(numbers), "status": "dropped", "reason": reason} | more


def scores(logme: float, h_score: float, knn: float, consensus: float) -> dict[str, Any]:
    """Second opinions as a candidate holds them."""
    return {
        "logme": {"value": logme, "low": logme - 0.04, "high": logme + 0.04},
        "h_score": {"value": h_score, "low": h_score - 0.3, "high": h_score + 0.3},
        "knn": {"value": knn, "low": knn - 0.02, "high": knn + 0.02},
        "consensus": {"value": consensus, "low": consensus - 0.2, "high": consensus + 0.2},
    }


def ranking(**more: Any) -> dict[str, Any]:
    """A leader, two that are tied with it, losers, two that left early (a decoy among them), two that dropped out."""
    candidates = [
        candidate(
            "vit_small_patch16_224.augreg_in21k_ft_in1k", 1, 0.951, rank_high=3, p_best=0.46, regret=0.0031, gap=0.0,
            gap_low=0.0, gap_high=0.0, tied=True, flops=9_200_000_000, params=21_665_664, feature_dim=384,
            scores=scores(0.81, 8.2, 0.93, 0.9), warnings=[SMALL],
        ),
        candidate(
            "convnext_nano.in12k_ft_in1k", 2, 0.948, rank_low=1, rank_high=4, p_best=0.31, regret=0.0052, tied=True,
            flops=4_900_000_000, params=14_950_000, feature_dim=640, licence="CC-BY-NC-4.0",
            licence_kind="non-commercial", scores=scores(0.84, 8.4, 0.94, 1.1), warnings=[LICENCE, SMALL],
        ),
        candidate(
            "mobilenetv3_large_100.ra_in1k", 3, 0.944, rank_low=1, rank_high=4, p_best=0.2, regret=0.0083, tied=True,
            flops=434_000_000, params=4_201_744, feature_dim=1280, scores=scores(0.78, 8.0, 0.92, 0.7),
        ),
        candidate(
            "mobilenetv3_large_100.ra_in1k#blocks.5", 4, 0.932, rank_low=3, rank_high=5, p_best=0.02, regret=0.0188,
            flops=391_000_000, params=2_900_000, feature_dim=160, base="mobilenetv3_large_100.ra_in1k",
            cut="blocks.5", scores=scores(0.7, 7.1, 0.9, 0.2),
        ),
        candidate(
            "resnet18.a1_in1k", 5, 0.913, flops=3_640_000_000, params=11_176_512, scores=scores(0.6, 6.8, 0.87, -0.2)
        ),
        candidate(
            "efficientnet_b0.ra_in1k", 6, 0.905, p_best=0.004, flops=800_000_000, params=4_010_000,
            scores=scores(0.63, 6.5, 0.88, -0.1),
        ),
        candidate(
            "vit_base_patch14_dinov2.lvd142m", 7, 0.86, rank_low=6, rank_high=8, half=0.05, rows=200,
            status="eliminated", reason="all but certainly not the best after 200 samples",
            flops=303_000_000_000, params=86_000_000, licence=None, licence_kind="unknown",
            scores=scores(0.5, 5.0, 0.8, -0.4),
        ),
        candidate(
            "resnet18 with random weights", 8, 0.412, half=0.06, status="eliminated", rows=200, flops=3_640_000_000,
            reason="all but certainly not the best after 200 samples", params=11_176_512,
            scores=scores(-0.4, 1.2, 0.3, -1.9),
        ),
        dropped("swin_tiny_patch4_window7_224.ms_in1k", "its weights are not here, and the hub can't be reached"),
        dropped(
            "vit_large_patch14_clip_336.openai",
            "too slow: about 48 min for 200 samples on this machine; select.minutes is 5: raise it, or name this "
            "backbone alone",
        ),
    ]  # fmt: skip
    return {
        "format": 2, "chosen": "mobilenetv3_large_100.ra_in1k", "request": "mobilenetv3_large_100.ra_in1k",
        "why": "tied with vit_small_patch16_224.augreg_in21k_ft_in1k and convnext_nano.in12k_ft_in1k, and the "
               "cheapest of them",
        "task": "multiclass", "metric": "accuracy", "confidence": 0.9, "prefer": "cost", "tolerance": 0.01,
        "sample_rows": 800, "training_rows": 3470,
        "stopped": "the next round would not fit into select.minutes",
        "rounds": [
            {"rows": 200, "entered": 10,
             "eliminated": ["resnet18 with random weights", "vit_base_patch14_dinov2.lvd142m"]},
            {"rows": 400, "entered": 6, "eliminated": []},
            {"rows": 800, "entered": 6, "eliminated": []},
        ],
        "candidates": candidates,
    } | more  # fmt: skip


def alone(**more: Any) -> dict[str, Any]:
    """One candidate, which had nobody to race against."""
    only = candidate("minilm-l6", 1, 0.912, p_best=1.0, gap=0.0, gap_low=0.0, gap_high=0.0, flops=2_900_000_000)
    return ranking(
        chosen="minilm-l6", request="minilm-l6", why="the only candidate", stopped="there is only one candidate",
        rounds=[{"rows": 800, "entered": 1, "eliminated": []}], candidates=[only],
    ) | more  # fmt: skip


def write(value: dict[str, Any], path: Path) -> Path:
    """The ranking as a file."""
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
    return path
