"""From a checkpoint to what is kept: the starter's weights, their digest, the record of the run and its plot."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.torch import save

from samples.pretrain.curve import draw_curve
from samples.pretrain.trainer import read_checkpoint


def export(checkpoint: Path, starter: Path, record: Path, settings: dict[str, Any]) -> str:
    """Write the body's weights of a checkpoint, the record and its plot; the weights' sha256.

    settings: all numbers of the run, `steps` among them. Kernels in float16, norms in float32: half the size, and no
    statistic out of range. config.json learns the digest that the catalogue expects.
    """
    tensors, progress = read_checkpoint(checkpoint)
    body = {
        name.removeprefix("body."): (value.half() if value.ndim > 1 else value).contiguous()
        for name, value in tensors.items()
        if name.startswith("body.") and not name.endswith("num_batches_tracked")
    }
    path = starter / "model.safetensors"
    path.write_bytes(save(body, metadata={"format": "pt"}))  # save_file would make it readable to its owner only
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    config = json.loads((starter / "config.json").read_text(encoding="utf-8"))
    config.setdefault("provenance", {})["safetensors_sha256"] = digest
    (starter / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    facts = {
        "settings": settings,
        "step": progress.step,
        "cpu_seconds": progress.curve[-1]["seconds"] if progress.curve else 0.0,
        "sha256": digest,
    }
    rows = ",\n    ".join(json.dumps({key: row[key] for key in ("step", "loss", "hits")}) for row in progress.curve)
    head = json.dumps(facts, indent=2)[:-2]
    record.write_text(f'{head},\n  "curve": [\n    {rows}\n  ]\n}}\n', encoding="utf-8")
    record.with_suffix(".svg").write_text(draw_curve(progress.curve, settings["steps"]), encoding="utf-8")
    return digest
