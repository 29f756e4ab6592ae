"""Transformers encoders: wav2vec 2.0, HuBERT, WavLM, data2vec-audio, Whisper's encoder and AST, cut into segments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tl_audio.backbones import AudioBackbone, FramePool, Stage, identity_of, loaded, main_output, modern_names
from tl_audio.frontends import AstMel, FrontEnd, Waveform, WhisperMel
from tl_core import BackboneSpec, State, UserError, find_weights, hub_folder, read_json

Segments = list[tuple[str, nn.Module]]


@dataclass(frozen=True)
class Family:
    """One of the library's architectures. prefixes: where a model with a head on top keeps the encoder's weights."""

    network: str
    extractor: str
    prefixes: tuple[str, ...]


FAMILIES = {
    "wav2vec2": Family("Wav2Vec2Model", "Wav2Vec2FeatureExtractor", ("wav2vec2.",)),
    "hubert": Family("HubertModel", "Wav2Vec2FeatureExtractor", ("hubert.",)),
    "wavlm": Family("WavLMModel", "Wav2Vec2FeatureExtractor", ("wavlm.",)),
    "data2vec-audio": Family("Data2VecAudioModel", "Wav2Vec2FeatureExtractor", ("data2vec_audio.",)),
    "whisper": Family("WhisperEncoder", "WhisperFeatureExtractor", ("model.encoder.", "encoder.")),
    "audio-spectrogram-transformer": Family("ASTModel", "ASTFeatureExtractor", ("audio_spectrogram_transformer.",)),
}

_AST_NAMES: tuple[
    tuple[str, str | Callable[[re.Match[str]], str]], ...
] = (  # checkpoints written by transformers 4 against the modules of 5; the longer patterns come first
    (r"\bencoder\.layer\.", "layers."),
    (r"\battention\.attention\.(query|key|value)\b", lambda match: f"attention.{match[1][0]}_proj"),
    (r"\battention\.output\.dense\b", "attention.o_proj"),
    (r"\bintermediate\.dense\b", "mlp.fc1"),
    (r"\boutput\.dense\b", "mlp.fc2"),
)


def build_encoder(spec: BackboneSpec, random_seed: int | None) -> AudioBackbone:
    """An encoder from a folder with config.json, preprocessor_config.json and weights, or from the hub."""
    folder, revision = Path(spec.location).expanduser(), spec.revision
    if spec.source == "hub":
        patterns = ["*.json"] if random_seed is not None else ["*.json", "model*.safetensors"]
        folder, revision = hub_folder(spec.location, spec.revision, allow=patterns)
    values = read_json(folder / "config.json")
    kind = values.get("model_type")
    if kind not in FAMILIES:
        raise UserError(f"{spec.name} is no audio encoder that tl knows: model_type {kind!r} in config.json "
                        f"(allowed: {', '.join(FAMILIES)})")  # fmt: skip
    if values.get("add_adapter"):
        raise UserError(f"{spec.name} has a convolutional adapter on top (add_adapter in config.json); "
                        "choose the encoder that it was made from")  # fmt: skip
    network, config, extractor = _library(FAMILIES[kind], kind, values, folder)
    front_end = front_end_of(kind, config, extractor)

    def files() -> list[Path]:
        if "file" in spec.options:
            return [folder / spec.options["file"]]
        if spec.source == "hub" and not list(folder.glob("model*.safetensors")):
            return find_weights(hub_folder(spec.location, spec.revision, allow=["pytorch_model*"])[0])
        return find_weights(folder)

    def rename(tensors: dict[str, Tensor], expected: set[str]) -> dict[str, Tensor]:
        return _present_names(_without_head(tensors, FAMILIES[kind].prefixes), expected, kind)

    model, digest = loaded(lambda: network(config), spec, files, rename, random_seed, ignore=("masked_spec_embed",))
    segments = encoder_segments(kind, model, config)
    settings = {
        key: value for key, value in values.items() if not key.startswith("_") and key != "transformers_version"
    }
    identity = identity_of(front_end, digest, f"transformers {network.__name__}", settings, revision)
    if kind != "audio-spectrogram-transformer":
        return AudioBackbone(segments, int(config.hidden_size), identity, front_end)
    rows = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    return AudioBackbone(  # its class and distillation tokens come first
        segments, int(config.hidden_size), identity, front_end, prefix=2, grid=rows
    )


def _library(family: Family, kind: str, values: dict[str, Any], folder: Path) -> tuple[Any, Any, Any]:
    """The library's network class, the model's config object and its feature extractor."""
    import transformers
    from transformers.models.whisper import modeling_whisper

    network = getattr(modeling_whisper if kind == "whisper" else transformers, family.network)
    try:
        config = network.config_class.from_dict(values)
    except Exception as error:
        raise UserError(f"unusable {folder / 'config.json'}: {str(error).splitlines()[0]}") from error
    try:
        extractor = getattr(transformers, family.extractor).from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise UserError(
            f"no usable preprocessor_config.json in {folder} ({str(error).splitlines()[0]}); "
            "copy it from where the weights come from"
        ) from error
    if extractor.feature_size != 1 and kind != "whisper":
        raise UserError(f"preprocessor_config.json in {folder} wants {extractor.feature_size} channels; expected 1")
    return network, config, extractor


def front_end_of(kind: str, config: Any, extractor: Any) -> FrontEnd:
    """What feeds an encoder of this model type; raises UserError where config and extractor don't fit."""
    rate = int(extractor.sampling_rate)
    if kind == "whisper":
        return WhisperMel(rate, extractor, config.max_source_positions)
    if kind == "audio-spectrogram-transformer":
        if (extractor.max_length, extractor.num_mel_bins) != (config.max_length, config.num_mel_bins):
            raise UserError(
                f"preprocessor_config.json gives {extractor.max_length} x {extractor.num_mel_bins} mel values, "
                f"config.json wants {config.max_length} x {config.num_mel_bins}: the files belong to different models"
            )
        return AstMel(rate, extractor)
    kernels = tuple(zip(config.conv_kernel, config.conv_stride, strict=True))
    return Waveform(rate, kernels, epsilon=1e-7 if extractor.do_normalize else None)


def _without_head(tensors: dict[str, Tensor], prefixes: Sequence[str]) -> dict[str, Tensor]:
    """The encoder's tensors alone; all of them where the file holds a bare encoder."""
    for prefix in prefixes:
        inside = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if inside:
            return inside
    return tensors


def _present_names(tensors: dict[str, Tensor], expected: set[str], kind: str) -> dict[str, Tensor]:
    if kind != "audio-spectrogram-transformer":
        return modern_names(tensors, expected)
    renamed = {}
    for key, tensor in tensors.items():
        for old, new in _AST_NAMES if key not in expected else ():
            key = re.sub(old, new, key)
        renamed[key] = tensor
    return renamed


def encoder_segments(kind: str, model: Any, config: Any) -> Segments:
    """The named segments of a network of this model type."""
    return {"whisper": _whisper, "audio-spectrogram-transformer": _ast}.get(kind, _wav2vec2)(model, config)


def _wav2vec2(model: Any, config: Any) -> Segments:
    # stable: norms stand before each layer and once at the end, otherwise after each layer and once at the start
    stable = bool(getattr(config, "do_stable_layer_norm", False))
    encoder = model.encoder
    features = Features(
        model.feature_extractor,
        model.feature_projection,
        encoder.pos_conv_embed,
        nn.Identity() if stable else encoder.layer_norm,
        encoder.dropout,
    )
    if config.model_type == "wavlm":
        layers: list[nn.Module] = [
            BiasedLayer(layer, encoder.layers[0].attention, merge_heads=True) for layer in encoder.layers
        ]
    else:
        layers = [Stage(layer) for layer in encoder.layers]
    pool = FramePool(encoder.layer_norm if stable else nn.Identity())
    return [("features", features), *_numbered(layers), ("pool", pool)]


def _whisper(model: Any, config: Any) -> Segments:
    layers = [WhisperLayer(layer) for layer in model.layers]
    return [("stem", WhisperStem(model)), *_numbered(layers), ("pool", FramePool(model.layer_norm))]


def _ast(model: Any, config: Any) -> Segments:
    blocks = model.layers if hasattr(model, "layers") else model.encoder.layer  # transformers 5, 4
    layers = [Stage(block) for block in blocks]
    return [("embeddings", Stage(model.embeddings)), *_numbered(layers), ("pool", TokenPool(model.layernorm))]


def _numbered(layers: Sequence[nn.Module]) -> Segments:
    return [(f"layer_{index}", layer) for index, layer in enumerate(layers)]


class Features(nn.Module):
    """Samples to frames: convolutions, projection, and positions by a convolution over the frames."""

    def __init__(
        self, convolutions: nn.Module, projection: nn.Module, positions: nn.Module, norm: nn.Module, dropout: nn.Module
    ) -> None:
        super().__init__()
        self.convolutions = convolutions
        self.projection = projection
        self.positions = positions
        self.norm = norm
        self.dropout = dropout

    def forward(self, state: State) -> State:
        x = self.convolutions(state["x"]).transpose(1, 2)  # [B, samples] -> [B, T, C]
        x = main_output(self.projection(x))  # [B, T, C] -> [B, T, D]
        x = self.dropout(self.norm(x + self.positions(x)))
        return {**state, "x": x}


class BiasedLayer(nn.Module):
    """A WavLM layer: its attention adds a bias by distance, from a table that only the first layer owns.

    Each layer asks that table anew, so that a cut before any layer needs nothing but `x`. The owner is held in a
    tuple, not as a submodule: its parameters belong to the first layer alone.
    """

    def __init__(self, layer: nn.Module, owner: Any, *, merge_heads: bool) -> None:
        super().__init__()
        self.layer = layer
        self._owner = (owner,)
        self._merge_heads = merge_heads

    def forward(self, state: State) -> State:
        x = state["x"]
        batch, frames, _ = x.shape
        bias = self._owner[0].compute_bias(frames, frames).unsqueeze(0).repeat(batch, 1, 1, 1)  # [B, heads, T, T]
        if self._merge_heads:
            bias = bias.flatten(0, 1)
        return {**state, "x": main_output(self.layer(x, position_bias=bias))}


class WhisperStem(nn.Module):
    """Two convolutions over the mel frames, then learnt positions."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.conv1 = encoder.conv1
        self.conv2 = encoder.conv2
        self.positions = encoder.embed_positions
        self.dropout = nn.Dropout(encoder.dropout)

    def forward(self, state: State) -> State:
        x = F.gelu(self.conv2(F.gelu(self.conv1(state["x"]))))  # [B, mels, 2T] -> [B, D, T]
        return {**state, "x": self.dropout(x.transpose(1, 2) + self.positions.weight)}


class WhisperLayer(nn.Module):
    """A layer that insists on its mask arguments (one in transformers 5, two in 4): without masks."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        accepted = inspect.signature(layer.forward).parameters
        self._masks = dict.fromkeys(name for name in ("attention_mask", "layer_head_mask") if name in accepted)

    def forward(self, state: State) -> State:
        return {**state, "x": main_output(self.layer(state["x"], **self._masks))}


class TokenPool(nn.Module):
    """AST's own pooling: the mean of its class and distillation tokens after the last norm."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, state: State) -> State:
        x = self.norm(state["x"])
        return {"x": ((x[:, 0] + x[:, 1]) / 2).float()}  # [B, T, D] -> [B, D]
