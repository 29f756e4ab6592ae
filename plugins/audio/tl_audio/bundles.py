"""torchaudio's pretrained bundles (wav2vec 2.0, HuBERT, WavLM) by name, from its server or a local file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tl_audio.backbones import AudioBackbone, FramePool, Stage, identity_of, loaded, modern_names
from tl_audio.encoders import BiasedLayer, Features
from tl_audio.frontends import Waveform
from tl_core import BackboneSpec, UserError

RATE = 16_000  # Hz, of all of them


@dataclass(frozen=True)
class Bundle:
    """factory: function of torchaudio.models; normalise: whether clips are scaled to zero mean and unit variance;
    biased: whether attention adds a bias by distance (WavLM)."""

    factory: str
    normalise: bool
    biased: bool = False


BUNDLES = {
    "WAV2VEC2_BASE": Bundle("wav2vec2_base", False),
    "WAV2VEC2_LARGE": Bundle("wav2vec2_large", False),
    "WAV2VEC2_LARGE_LV60K": Bundle("wav2vec2_large_lv60k", True),
    "WAV2VEC2_XLSR53": Bundle("wav2vec2_large_lv60k", True),
    "WAV2VEC2_XLSR_300M": Bundle("wav2vec2_xlsr_300m", True),
    "WAV2VEC2_XLSR_1B": Bundle("wav2vec2_xlsr_1b", True),
    "WAV2VEC2_XLSR_2B": Bundle("wav2vec2_xlsr_2b", True),
    "HUBERT_BASE": Bundle("hubert_base", False),
    "HUBERT_LARGE": Bundle("hubert_large", True),
    "HUBERT_XLARGE": Bundle("hubert_xlarge", True),
    "WAVLM_BASE": Bundle("wavlm_base", False, biased=True),
    "WAVLM_BASE_PLUS": Bundle("wavlm_base", False, biased=True),
    "WAVLM_LARGE": Bundle("wavlm_large", True, biased=True),
}


def build_bundle(spec: BackboneSpec, random_seed: int | None) -> AudioBackbone:
    """The bundle `spec.options["bundle"]`: downloaded by torchaudio, or from the weights file `spec.location`."""
    import torchaudio

    name = spec.options["bundle"]
    bundle = BUNDLES[name]

    def files() -> Sequence[Path]:
        return [Path(spec.location).expanduser() if spec.source == "file" else downloaded(name)]

    model, digest = loaded(
        getattr(torchaudio.models, bundle.factory), spec, files, modern_names, random_seed, ignore=("aux.",)
    )
    front_end = bundle_front_end(model, bundle)
    identity = identity_of(
        front_end,
        digest,
        f"torchaudio {bundle.factory}",
        {"parameters": {key: list(value.shape) for key, value in model.state_dict().items()}},
        spec.revision or f"torchaudio {torchaudio.__version__}",
    )
    dim = int(model.encoder.feature_projection.projection.out_features)
    return AudioBackbone(bundle_segments(model, bundle), dim, identity, front_end)


def downloaded(name: str) -> Path:
    """The bundle's weights file in torch's hub folder, fetched where it is missing.

    Raises UserError, with what to do offline, where it can't be had.
    """
    import torchaudio

    folder = _cache(name)
    if not list(folder.glob("*.pth")):
        try:
            getattr(torchaudio.pipelines, name).get_model(dl_kwargs={"model_dir": str(folder), "weights_only": True})
        except Exception as error:
            raise UserError(
                f"can't download the torchaudio bundle {name}: {error}; without network give its weights file: "
                f"--backbone {name}@FILE"
            ) from error
    return sorted(folder.glob("*.pth"))[0]


def is_downloaded(spec: BackboneSpec) -> bool:
    """True where torch's hub folder has the weights of the bundle `spec.options["bundle"]`."""
    return bool(list(_cache(spec.options["bundle"]).glob("*.pth")))


def _cache(name: str) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "torchaudio-bundles" / name


class Convolutions(nn.Module):
    """torchaudio's feature extractor without its lengths, frames last as in transformers."""

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, x: Tensor) -> Tensor:
        frames: Tensor = self.extractor(x, None)[0]
        return frames.transpose(1, 2)  # [B, T, C] -> [B, C, T]


def bundle_front_end(model: Any, bundle: Bundle) -> Waveform:
    """What feeds a bundle's network."""
    return Waveform(
        RATE,
        kernels=tuple((int(layer.kernel_size), int(layer.stride)) for layer in model.feature_extractor.conv_layers),
        epsilon=1e-5 if bundle.normalise else None,  # of torch's layer_norm, which torchaudio applies to the clip
    )


def bundle_segments(model: Any, bundle: Bundle) -> list[tuple[str, nn.Module]]:
    """The named segments of a bundle's network."""
    transformer = model.encoder.transformer
    first = bool(transformer.layer_norm_first)  # here: the norm stands before the layers, not after them
    features = Features(
        Convolutions(model.feature_extractor),
        model.encoder.feature_projection,
        transformer.pos_conv_embed,
        transformer.layer_norm if first else nn.Identity(),
        transformer.dropout,
    )
    layers: list[nn.Module]
    if bundle.biased:
        owner = transformer.layers[0].attention
        layers = [BiasedLayer(layer, owner, merge_heads=False) for layer in transformer.layers]
    else:
        layers = [Stage(layer) for layer in transformer.layers]
    pool = FramePool(nn.Identity() if first else transformer.layer_norm)
    return [("features", features), *((f"layer_{i}", layer) for i, layer in enumerate(layers)), ("pool", pool)]
