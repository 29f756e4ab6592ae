"""What the probe loses by features of bfloat16: the same probe on both precision classes, on sets with a test split."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.features.plugins import registry_here
from benchmarks.features.setting import Setup, say
from benchmarks.starters.probing import probe_fold
from tl_core.config import validate
from tl_core.manifest import scan
from tl_core.store import FeatureStore

SETS = {
    "image": ("caltech20", "hymenoptera", "sign_digits", "pacs_mini"),
    "text": ("trec6", "banking77", "sentiment_domains", "sst2_mini", "masakhanews_fra"),
    "audio": ("esc10", "fsdd"),
}
BACKBONES = {
    "image": ("mobilenetv2_100_imagenet", "mobilenet_v1_025_224_imagenet"),
    "text": (),  # the text encoder
    "audio": ("yamnet_audioset",),
}
CASES = tuple(SETS)
CLASSES = ("float32", "bfloat16")
COLUMNS = {"masakhanews_fra": {"text": "text"}}  # where a guess would take another column


def measure(case: str, setup: Setup) -> dict[str, Any]:
    """Accuracies by set and backbone, and the differences in points, bfloat16 minus float32."""
    registry, rows = registry_here(), []
    sets = SETS[case][:1] if setup.quick else SETS[case]
    backbones = [str(setup.data / "weights" / name) for name in BACKBONES[case]] or [setup.text_encoder]
    absent = [name for name in sets if not (setup.data / "datasets" / name).is_dir()]
    for name in sets:
        if name in absent:
            continue
        settings = validate({"data": COLUMNS.get(name, {})})
        path = setup.data / "datasets" / name
        manifest = scan(
            path, settings, registry.loaders(), base=setup.cache, cache=setup.cache / "scan", progress=False
        )
        for backbone in backbones[:1] if setup.quick else backbones:
            built = registry.backbone(backbone, case).build()
            right = {}
            for precision in CLASSES:
                config = validate({"extract": {"precision": precision}})
                store = FeatureStore(setup.cache / "probe-store")
                right[precision] = probe_fold(manifest, built, registry, store, config)
            row = difference(right["float32"], right["bfloat16"])
            rows.append({"data": name, "backbone": backbone.rpartition("/")[2], **row})
            say(f"  {name}, {rows[-1]['backbone']}: {row['float32']:.4f} and {row['bfloat16']:.4f}")
    return {"rows": rows, "absent": absent, **spread([row["points"] for row in rows])}


def difference(full: np.ndarray, half: np.ndarray) -> dict[str, Any]:
    """Both accuracies, bfloat16 minus float32 in points, and how many test rows changed either way; bool [N] each."""
    return {
        "test_rows": len(full),
        "float32": round(float(full.mean()), 5),
        "bfloat16": round(float(half.mean()), 5),
        "points": round(100 * float(half.mean() - full.mean()), 3),
        "lost": int((full & ~half).sum()),
        "won": int((~full & half).sum()),
    }


def spread(points: list[float]) -> dict[str, float | None]:
    """Mean of differences, their standard deviation and the mean's standard error (None where there is one or none)."""
    if not points:
        return {"mean_points": None, "sd_points": None, "standard_error": None}
    sd = float(np.std(points, ddof=1)) if len(points) > 1 else None
    return {
        "mean_points": round(float(np.mean(points)), 3),
        "sd_points": None if sd is None else round(sd, 3),
        "standard_error": None if sd is None else round(sd / len(points) ** 0.5, 3),
    }
