"""Fits, and searches for their settings, in one of several processes: `together.py FOLDER SETTINGS`.

They train together, started by `accelerate launch`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from chains import Chain, maps
from jobs import PlainMaps, job_of
from resumed import searched
from safetensors.torch import save_file
from torch import nn

from tl_core.manifest import Manifest
from tl_core.training.processes import processes


def still() -> Chain:
    """Without dropout, which each process draws for itself."""
    backbone = maps()
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return backbone


def main(root: Path, cases: list[dict[str, object]]) -> None:
    torch.set_num_threads(1)
    manifest = Manifest.load(root / "manifest.parquet", root)
    together = processes(torch.device("cpu"))
    for number, settings in enumerate(cases):
        job = job_of(manifest, root / f"{together.count}-{number}", loader=PlainMaps(), backbone=still, **settings)
        fitted = searched(job)
        fitted.facts["agreed"] = together.agreed(2.0 ** (38 + together.index))
        assert fitted.backbone is not None
        tensors = {**fitted.backbone.state_dict(), **{f"head.{k}": v for k, v in fitted.head.state_dict().items()}}
        name = f"{number}-{together.index}-of-{together.count}"
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, root / f"{name}.safetensors")
        (root / f"{name}.json").write_text(json.dumps([fitted.facts, fitted.said.tolist()]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
