"""Fills in tl_image/backbones.csv: `python plugins/image/counting.py`, after a row was added or timm renewed.

Of each row the name and what it was pretrained on are given by hand; where it lies, its licence and its input are
timm's metadata, the rest is counted on the network that tl builds, which takes no weights and hardly any memory. The
rows come out from few parameters to many.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import set_fused_attn
from tl_image import timm_networks
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tl_core import State

TABLE = Path(__file__).parent / "tl_image/backbones.csv"
COLUMNS = ("name", "pretraining", "hub", "licence", "height", "width", "params", "flops", "features")


def stated(name: str) -> dict[str, Any]:
    """What timm's metadata say. Raises ValueError where tl would not find the weights."""
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or not cfg.hf_hub_id or cfg.hf_hub_filename:
        raise ValueError(f"{name}: no repository on the hub with its weights in model.safetensors")
    _, height, width = cfg.input_size
    return {"hub": cfg.hf_hub_id, "licence": cfg.license or "", "height": height, "width": width}


def counted(name: str) -> dict[str, int]:
    """Parameters, floating-point operations of one image, and width of the embedding, without a classifier.

    Operations are 2 x multiply-adds of the matrix products and convolutions, at the input size that timm states.
    """
    network = timm_networks.by_name(name)
    set_fused_attn(False)  # attention as the matrix products that it is: fused ones have no count on every device
    try:
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            segments = network.split(network.create().eval().requires_grad_(False))
            state: State = {"x": torch.empty(1, 3, *network.preprocessing.size)}
            for _, segment in segments:
                state = segment(state)
    finally:
        set_fused_attn(True)
    params = sum(p.numel() for p in nn.ModuleList([segment for _, segment in segments]).parameters())
    return {"params": params, "flops": counter.get_total_flops(), "features": state["x"].shape[-1]}


def main() -> None:
    with TABLE.open(encoding="utf-8", newline="") as stream:
        given = [(row["name"], row["pretraining"]) for row in csv.DictReader(stream)]
    rows = [{"name": name, "pretraining": data, **stated(name), **counted(name)} for name, data in given]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: (row["params"], row["name"])))
    TABLE.write_text(text.getvalue(), encoding="utf-8")
    print(f"{TABLE}: {len(rows)} models of timm {timm.__version__}")


if __name__ == "__main__":
    main()
