"""Counts what tl_text/architectures.json says of each network: parameters, FLOPs of 128 tokens, embedding width.

    python plugins/text/counting.py

Builds every network from its configuration on torch's meta device, as the plugin itself does, so that no weights and
no memory are needed, and writes the numbers beside the configurations. Run it again after a change to the table; a
test compares the two. No part of the package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tl_text.backbones import build, empty_encoder
from tl_text.recipe import Recipe
from tl_text.segments import Dense, Network, chain
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tl_core import BackboneSpec, State

TABLE = Path(__file__).parent / "tl_text/architectures.json"
TOKENS = 128  # what a catalogue's FLOPs of a text are stated for
_NOBODY = BackboneSpec("counted", "text", "folder", "", builder=build)  # only named where a network can't be built


def counted(config: dict[str, Any]) -> dict[str, int]:
    """Parameters of the encoder (and its dense layer), FLOPs (2 x multiply-adds) of a text, and embedding width."""
    values = {key: value for key, value in config.items() if key != "dense"}
    recipe = Recipe(folder=Path(), config=values, max_length=TOKENS)
    with torch.device("meta"):
        encoder = empty_encoder(recipe, _NOBODY).eval().requires_grad_(False)
        sizes = [config["dense"]] if "dense" in config else []
        dense = [Dense(inputs, outputs, bias=True, activation=nn.Tanh()) for inputs, outputs in sizes]
        x = torch.zeros(1, TOKENS, dtype=torch.int64)
        state: State = {"x": x, "mask": torch.ones_like(x)}
    segments = [segment for _, segment in chain(encoder)]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        if isinstance(segments[0], Network):  # would look into its mask and for padding, and nothing here has values
            encoder.config.pad_token_id = None
            tokens = encoder(input_ids=x).last_hidden_state
        else:
            for segment in segments:
                state = segment(state)
            tokens = state["x"]
        pooled = nn.Sequential(*dense)(tokens.mean(dim=1))
    params = sum(value.numel() for part in [encoder, *dense] for value in part.parameters())
    return {"params": params, "flops": counter.get_total_flops(), "feature_dim": pooled.shape[-1]}


def main() -> None:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    for facts in table.values():
        facts |= counted(facts["config"])
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(facts)}" for name, facts in table.items())
    TABLE.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
