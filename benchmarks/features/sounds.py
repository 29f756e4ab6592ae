"""Sounds: tl on each engine against wav2vec2 run in padded batches and one clip at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.features.contest import Contender, Contest, Entry, Work
from benchmarks.features.material import RATE, clips, load, manifest_of
from benchmarks.features.models import wav2vec2_folder
from benchmarks.features.ours import REFERENCE, Job, contenders, ratios
from benchmarks.features.setting import Setup
from benchmarks.features.texts import closeness

CASES = ("wav2vec2-base",)
PADDED, SINGLE = "padded batches float32", "one by one float32"
PADDED_BATCH = 8
COUNTS = {"cpu": 20, "cuda": 512}


def measure(case: str, setup: Setup) -> dict[str, Any]:
    """Rates in clips and in seconds of sound, ratios, and whether company changes features."""
    count, warm = (4 if setup.quick else COUNTS[setup.device]), 2
    folder = clips(setup, count + 2 * warm)
    manifest, model = manifest_of(folder, setup), wav2vec2_folder(setup)
    job = Job(
        manifest, "audio", str(model), setup.device, setup.cache / "contest" / "sounds",
        distinct=count, decode=count, warm=warm,
    )  # fmt: skip

    def rows(engine: str, precision: str) -> tuple[int, int]:
        return count, 0 if (engine, setup.device) == ("torch", "cpu") else count

    ours = contenders(job, rows)
    given = {"manifest": manifest, "model": model, "device": setup.device, "skip": 2 * warm, "count": count}
    rivals = [
        Contender(PADDED, enter_loop, {**given, "batch": PADDED_BATCH}),
        Contender(SINGLE, enter_loop, {**given, "batch": 1}),
    ]
    with Contest([*ours, *rivals]) as contest:
        works = contest.rounds(setup.rounds)
        best, reference = ours[0].name, REFERENCE
        close = {
            f"{best} to {reference}": closeness(contest, best, reference),
            f"{reference} to {SINGLE}": closeness(contest, reference, SINGLE),
            f"{PADDED} to {SINGLE}": closeness(contest, PADDED, SINGLE),
        }
        company = contest.once(best, "company")
    seconds = _seconds(manifest, 2 * warm, count)
    return {
        "unit": "clips",
        "sample": {"seconds": round(float(seconds.sum()), 1), "mean_seconds": round(float(seconds.mean()), 3)},
        "works": works,
        "facts": contest.facts,
        "absent": contest.absent,
        "ratios": ratios(works, ours, [PADDED, SINGLE]),
        "cosine": {pair: found for pair, found in close.items() if found},
        "company": company,
    }


def enter_loop(manifest: Path, model: Path, device: str, skip: int, count: int, batch: int) -> Entry:
    """transformers' feature extractor and model in eager float32, the mean over frames; padded within a batch."""
    import soundfile
    import torch
    from transformers import AutoFeatureExtractor, AutoModel

    extractor = AutoFeatureExtractor.from_pretrained(model, local_files_only=True)
    network = AutoModel.from_pretrained(model, local_files_only=True).eval().to(device)
    table, rows = load(manifest)
    paths = [Path(sample.source) for sample in table.samples(rows[skip : skip + count])]
    last = np.zeros((0, 0), np.float32)

    def embedded(part: list[Path]) -> torch.Tensor:
        sounds = [soundfile.read(path, dtype="float32")[0] for path in part]
        inputs = extractor(sounds, sampling_rate=RATE, padding=True, return_tensors="pt").to(device)
        frames: torch.Tensor = network(**inputs).last_hidden_state  # [B, T, D]
        return frames.mean(dim=1).cpu()

    def whole() -> Work:
        def work() -> dict[str, Any]:
            nonlocal last
            with torch.inference_mode():
                found = [embedded(paths[i : i + batch]) for i in range(0, len(paths), batch)]
            last = torch.cat(found).numpy()
            return {"items": len(last)}

        return work

    def features() -> Work:
        path = manifest.parent / f"loop-{batch}.npy"

        def work() -> dict[str, Any]:
            np.save(path, last)
            return {"path": str(path)}

        return work

    with torch.inference_mode():
        embedded(paths[:1])
    return Entry({"whole": whole, "features": features}, {"engine": f"transformers eager, float32, batch {batch}"})


def _seconds(manifest: Path, skip: int, count: int) -> np.ndarray:
    import soundfile

    table, rows = load(manifest)
    return np.array([soundfile.info(str(s.source)).duration for s in table.samples(rows[skip : skip + count])])
