"""Counts what tl_audio/architectures.json says of each network: parameters, FLOPs of 10 s of sound, embedding width.

    python plugins/audio/counting.py

Builds every network from its configuration on torch's meta device and cuts it into the plugin's own segments, so that
no weights and no memory are needed, and writes the numbers beside the configurations. Run it again after a change to
the table; a test compares the two. No part of the package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tl_audio.bundles import BUNDLES, bundle_front_end, bundle_segments
from tl_audio.catalogue import catalogue
from tl_audio.encoders import FAMILIES, encoder_segments, front_end_of
from tl_audio.frontends import FrontEnd, stacked
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

TABLE = Path(__file__).parent / "tl_audio/architectures.json"
SECONDS = 10  # of sound that a catalogue's FLOPs are stated for
Parts = tuple[nn.Module, list[nn.Module], FrontEnd]


def counted(config: dict[str, Any]) -> dict[str, int]:
    """Parameters of the encoder, FLOPs (2 x multiply-adds) of 10 s in as many windows as they take, and width.

    A window longer than 10 s counts whole, since the encoder computes it whole.
    """
    build = _packaged if "package" in config else _bundle if "factory" in config else _encoder
    model, segments, front_end = build(config)
    windows = front_end.windows(np.zeros(SECONDS * front_end.rate, np.float32))
    state = {key: value.to("cpu" if "package" in config else "meta") for key, value in stacked(windows).items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for segment in segments:
            state = segment(state)
    params = sum(value.numel() for value in model.parameters())
    return {"params": params, "flops": counter.get_total_flops(), "feature_dim": state["x"].shape[-1]}


def _encoder(config: dict[str, Any]) -> Parts:
    """A network of transformers with the extractor that its configuration asks for."""
    import transformers
    from transformers.models.whisper import modeling_whisper

    kind = config["model_type"]
    family = FAMILIES[kind]
    network: Any = getattr(modeling_whisper if kind == "whisper" else transformers, family.network)
    settings = network.config_class.from_dict(config)
    sizes: dict[str, Any] = {}
    if kind == "whisper":
        sizes = {"feature_size": settings.num_mel_bins}
    elif kind == "audio-spectrogram-transformer":
        sizes = {"max_length": settings.max_length, "num_mel_bins": settings.num_mel_bins}
    front_end = front_end_of(kind, settings, getattr(transformers, family.extractor)(**sizes))
    with torch.device("meta"):
        model = network(settings).eval()
    return model, [segment for _, segment in encoder_segments(kind, model, settings)], front_end


def _bundle(config: dict[str, Any]) -> Parts:
    """A network of torchaudio."""
    import torchaudio

    bundle = next(bundle for bundle in BUNDLES.values() if bundle.factory == config["factory"])
    with torch.device("meta"):
        model = getattr(torchaudio.models, bundle.factory)().eval()
    return model, [segment for _, segment in bundle_segments(model, bundle)], bundle_front_end(model, bundle)


def _packaged(config: dict[str, Any]) -> Parts:
    """The network inside the package, small enough to be built for real, with random weights."""
    spec = next(spec for spec in catalogue() if spec.location == config["package"])
    backbone: Any = spec.build(random_seed=0)
    return backbone, list(backbone.segments.values()), backbone.front_end


def main() -> None:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    for facts in table.values():
        facts |= counted(facts["config"])
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(facts)}" for name, facts in table.items())
    TABLE.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
