"""Images: tl on each engine against the loop that a user would write, with forward and decoding alone beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.features.contest import Contender, Contest, Entry, Work
from benchmarks.features.material import load, manifest_of, photos
from benchmarks.features.models import timm_folder
from benchmarks.features.ours import Job, contenders, ratios
from benchmarks.features.setting import Setup

CASES = ("resnet50", "mobilenetv3_large_100", "vit_small_patch16_224")
LOOP = "user's loop"
LOOP_BATCH = 32

# images in one timed work of some five seconds: tl in half and in full precision, the loop
COUNTS = {
    "cpu": {
        "resnet50": (256, 128, 96),
        "mobilenetv3_large_100": (1600, 1200, 224),
        "vit_small_patch16_224": (192, 128, 96),
    },
    "cuda": dict.fromkeys(CASES, (6000, 6000, 2000)),
}


def measure(case: str, setup: Setup) -> dict[str, Any]:
    """One network's rates, and ratios to the loop and to the forward alone."""
    half, full, loop = (24, 16, 16) if setup.quick else COUNTS[setup.device][case]
    warm, decode = (4 if setup.quick else 16), setup.sized(640, 24)
    folder = photos(setup, setup.sized(_most(setup.device), 64))
    manifest, model = manifest_of(folder, setup), timm_folder(setup, case)
    job = Job(
        manifest, "image", str(model), setup.device, setup.cache / "contest" / case,
        distinct=64, decode=decode, warm=warm,
    )  # fmt: skip

    def rows(engine: str, precision: str) -> tuple[int, int]:
        count = half if precision == "bfloat16" else full
        return count, max(8, count // 2)

    ours = contenders(job, rows)
    given = {"manifest": manifest, "model": model, "device": setup.device, "rows": loop, "decode": decode // 2}
    rival = Contender(LOOP, enter_loop, given, ("whole", "forward", "decode"))
    with Contest([*ours, rival]) as contest:
        works = contest.rounds(setup.rounds)
    manifest_, _ = load(manifest)
    sizes = [Path(manifest_.sample(int(row)).source).stat().st_size for row in manifest_.rows()[:200]]
    return {
        "unit": "images",
        "sample": {"mean_bytes": round(sum(sizes) / len(sizes))},
        "works": works,
        "facts": contest.facts,
        "absent": contest.absent,
        "ratios": ratios(works, ours, [LOOP]),
    }


def enter_loop(manifest: Path, model: Path, device: str, rows: int, decode: int) -> Entry:
    """The loop: DataLoader with two workers, Pillow, timm's transform, eager float32 in inference mode."""
    import timm
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    network = timm.create_model(f"local-dir:{model}", pretrained=True, num_classes=0).eval().to(device)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    table, order = load(manifest)
    paths = [Path(sample.source) for sample in table.samples(order[: max(rows, decode)])]

    class Photos(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return rows

        def __getitem__(self, item: int) -> torch.Tensor:
            pixels: torch.Tensor = transform(Image.open(paths[item]).convert("RGB"))
            return pixels

    # fork is what a script on Linux gets; contenders are spawned, which would be handed down
    batches = DataLoader(Photos(), batch_size=min(LOOP_BATCH, rows), num_workers=2, multiprocessing_context="fork")

    def whole() -> Work:
        def work() -> dict[str, Any]:
            with torch.inference_mode():
                found = torch.cat([network(batch.to(device)).cpu() for batch in batches])
            return {"items": len(found)}

        return work

    def forward() -> Work:
        batch = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths[:LOOP_BATCH]])

        def work() -> dict[str, Any]:
            done = 0
            with torch.inference_mode():
                while done < rows // 2:
                    done += len(network(batch.to(device)).cpu())
            return {"items": done}

        return work

    def decoding() -> Work:
        def work() -> dict[str, Any]:
            for path in paths[:decode]:
                transform(Image.open(path).convert("RGB"))
            return {"items": decode}

        return work

    with torch.inference_mode():
        network(torch.zeros(min(LOOP_BATCH, rows), 3, 224, 224, device=device))
    return Entry({"whole": whole, "forward": forward, "decode": decoding}, {"engine": "torch eager, float32"})


def _most(device: str) -> int:
    """Photos that the largest case needs."""
    return max(max(counts) for counts in COUNTS[device].values()) + 32
