"""How far engines are apart in either precision class, on real photos and texts: what `TOLERANCE` allows for.

`python -m benchmarks.engines_apart [--data FOLDER]` writes benchmarks/results/engines_apart.md. The folder holds
`datasets/` and `weights/`; networks whose weights are not there are drawn at random, and said to be.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from tl_core.engines import Engine, TorchEngine, choose_engine, cpu_name
from tl_core.registry import Registry, load_registry
from tl_core.types import Backbone, State

RESULTS = Path(__file__).parent / "results" / "engines_apart.md"
WEIGHTS = ("mobilenetv2_100_imagenet", "mobilenetv1_100_imagenet", "mobilenet_v1_050_160_imagenet",
           "squeezenet1_0_imagenet")  # fmt: skip
DRAWN = ("resnet50", "mobilenetv3_large_100", "vit_small_patch16_224")
CPU = torch.device("cpu")


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest distance of two rows [N, D], as a share of the expected row's length."""
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())


def measured(backbone: Backbone, batch: State) -> dict[str, float]:
    """Distances of torch and OpenVINO in both classes."""
    rows: dict[tuple[str, str], torch.Tensor] = {}
    for precision in ("float32", "bfloat16"):
        rows["torch", precision] = _through(TorchEngine(backbone, None, CPU, precision), batch)
        engine, note = choose_engine(
            backbone, engine="openvino", device=CPU, precision=precision, stop=None, rows=len(batch["x"]), folder=None,
            example=batch,
        )  # fmt: skip
        if note:
            raise SystemExit(note)
        rows["openvino", precision] = _through(engine, batch)
    exact = rows["torch", "float32"]
    return {
        "float32: OpenVINO from torch": apart(rows["openvino", "float32"], exact),
        "bfloat16: OpenVINO from torch": apart(rows["openvino", "bfloat16"], rows["torch", "bfloat16"]),
        "torch bfloat16 from float32": apart(rows["torch", "bfloat16"], exact),
        "OpenVINO bfloat16 from float32": apart(rows["openvino", "bfloat16"], exact),
    }


def _through(engine: Engine, batch: State) -> torch.Tensor:
    return next(engine.run([(0, batch)]))[1]["x"]


def _photos(registry: Registry, backbone: Backbone, files: list[Path]) -> State:
    loader = registry.loader("image")
    return backbone.collate([backbone.prepare(loader.decode_for(path, backbone.need)).windows[0] for path in files])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    data = parser.parse_args().data
    registry = load_registry()
    files = sorted((data / "datasets" / "caltech20" / "train").rglob("*.jpg"))[::37][:16]
    if not files:
        raise SystemExit(f"no photos in {data}/datasets/caltech20/train; give --data")
    found: dict[str, dict[str, float]] = {}
    for name in WEIGHTS:
        backbone = registry.backbone(str(data / "weights" / name), "image").build()
        found[name] = measured(backbone, _photos(registry, backbone, files))
    for name in DRAWN:
        backbone = registry.backbone(name, "image").build(random_seed=0)
        found[f"{name}, random weights"] = measured(backbone, _photos(registry, backbone, files))
    minilm = registry.backbone("all-minilm-l6-v2", "text").build()
    words = ["where", "is", "my", "parcel", "and", "who", "has", "signed", "for", "it", "today"]
    texts = [" ".join(words[i % 4 : i % 4 + 8]) for i in range(16)]
    windows = [sample.windows[0] for sample in minilm.prepare_many(texts)]
    widest = max(windows, key=minilm.bucket)
    same = [window for window in windows if minilm.bucket(window) == minilm.bucket(widest)]
    found["all-minilm-l6-v2"] = measured(minilm, minilm.collate(same))
    columns = list(next(iter(found.values())))
    lines = [
        "# How far engines are apart",
        "",
        f"Largest distance of {len(files)} rows, as a share of the row's length, on {cpu_name()}; written by",
        "`python -m benchmarks.engines_apart`.",
        "",
        f"| network | {' | '.join(columns)} |",
        f"|{'---|' * (len(columns) + 1)}",
        *(f"| {name} | {' | '.join(np.format_float_positional(v, 2, fractional=False) for v in row.values())} |"
          for name, row in found.items()),
        "",
    ]  # fmt: skip
    RESULTS.write_text("\n".join(lines), encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
