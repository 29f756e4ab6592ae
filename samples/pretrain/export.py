"""From a checkpoint to what is kept: the starter's weights, their digest, the record of the run and its plot."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.torch import save

from samples.pretrain.curve import draw_curve
from samples.pretrain.trainer import read_checkpoint
from tl_core.errors import UserError
from tl_core.workspace import write_bytes, write_text


def export(checkpoint: Path, starter: Path, record: Path, settings: dict[str, Any]) -> str:
    """Write the body's weights of a checkpoint, the record and its plot; the weights' sha256.

    settings: all numbers of the run, `steps` among them. Kernels in float16, norms in float32: half the size, and no
    statistic out of range. config.json learns the digest that the catalogue expects. Each file is replaced at once;
    after a kill between two of them the same call mends them. Raises UserError, before anything is written, where
    the checkpoint is missing or was trained with other settings: the record would tell of another run.
    """
    if not checkpoint.is_file():
        raise UserError(f"no checkpoint {checkpoint}; pretrain first, without --export-only")
    tensors, progress, identity = read_checkpoint(checkpoint)
    other = [
        f"{name} {identity.get(name)}, not {value}" for name, value in settings.items() if identity.get(name) != value
    ]
    if other:
        raise UserError(f"{checkpoint} was trained with {'; '.join(other)}; export it with its own settings")
    body = {
        name.removeprefix("body."): (value.half() if value.ndim > 1 else value).contiguous()
        for name, value in tensors.items()
        if name.startswith("body.") and not name.endswith("num_batches_tracked")
    }
    weights = save(body, metadata={"format": "pt"})
    write_bytes(starter / "model.safetensors", weights)
    digest = hashlib.sha256(weights).hexdigest()
    config = json.loads((starter / "config.json").read_text(encoding="utf-8"))
    config.setdefault("provenance", {})["safetensors_sha256"] = digest
    write_text(starter / "config.json", json.dumps(config, indent=2) + "\n")
    facts = {
        "settings": settings,
        "step": progress.step,
        "cpu_seconds": progress.curve[-1]["seconds"] if progress.curve else 0.0,
        "sha256": digest,
    }
    rows = ",\n    ".join(json.dumps({key: row[key] for key in ("step", "loss", "hits")}) for row in progress.curve)
    head = json.dumps(facts, indent=2)[:-2]
    write_text(record, f'{head},\n  "curve": [\n    {rows}\n  ]\n}}\n')
    write_text(record.with_suffix(".svg"), draw_curve(progress.curve, settings["steps"]))
    return digest
