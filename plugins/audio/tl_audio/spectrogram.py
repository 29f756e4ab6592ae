"""Spectrogram CNNs: a timm body over mel patches, both described by the folder's config.json (YAMNet is one).

The spectrogram is made in `prepare`, not in a segment: it has nothing to train, it is the same for every body, and
a cut after any block then caches what the block computed instead of the sound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tl_audio.backbones import AudioBackbone, Stage, identity_of, loaded
from tl_audio.frontends import FrontEnd, Span, cut, cut_starts
from tl_audio.spec_augment import spec_augment
from tl_core import (
    BackboneSpec,
    State,
    UserError,
    find_weights,
    package_folder,
    read_json,
    read_weights,
    weights_digest,
)

_WHOLE = ("sample_rate", "n_fft", "win_length", "hop_length", "n_mels", "patch_frames", "patch_hop")
_REAL = ("f_min", "f_max")
PATCHES = 8  # in a forward batch: a CPU gains nothing by more, and a filled-up rest costs little
_BLOCK = 4096  # frames transformed at once
_LOG = re.compile(r"(ln|log10)\(mel \+ ([0-9.e-]+)\)")


@dataclass(frozen=True, eq=False)
class MelPatches(FrontEnd):
    """Log-mel spectrogram cut into overlapping patches, [1, frames, mels] each.

    Patches start every `hop` frames, the last one is shifted back to end with the clip. A clip shorter than one
    patch is followed by silence, as YAMNet was trained.

    numbers: the folder's `frontend`; filters: float32 [mels, n_fft / 2 + 1]; log_scale and log_offset give
    log_scale * ln(mel + log_offset); mean and std of the body's input.
    """

    numbers: Mapping[str, Any]
    filters: Tensor
    log_scale: float
    log_offset: float
    mean: float
    std: float
    filters_digest: str
    spectrogram: Any = field(init=False)

    def __post_init__(self) -> None:
        import torchaudio

        spectrogram = torchaudio.transforms.Spectrogram(
            n_fft=self.numbers["n_fft"],
            win_length=self.numbers["win_length"],
            hop_length=self.numbers["hop_length"],
            power=self.numbers["power"],
            center=False,
        )
        object.__setattr__(self, "spectrogram", spectrogram)

    def windows(self, samples: np.ndarray) -> tuple[State, ...]:
        frames = self.numbers["patch_frames"]
        samples = np.pad(samples, (0, max(0, self._shortest - len(samples))))
        mel = torch.cat([self._log_mel(block) for block in self._blocks(samples)]).numpy()  # [T, mels]
        patches = cut(mel, frames, self.numbers["patch_hop"])  # they overlap, and share the spectrogram's memory
        return tuple({"x": torch.from_numpy(patch).unsqueeze(0)} for patch in patches)

    @property
    def _shortest(self) -> int:
        """Samples of one patch."""
        return int((self.numbers["patch_frames"] - 1) * self.numbers["hop_length"] + self.numbers["win_length"])

    def spans(self, samples: int) -> list[Span]:
        n_fft, hop = self.numbers["n_fft"], self.numbers["hop_length"]
        padding = 2 * (n_fft // 2) if self.numbers.get("center", False) else n_fft - self.numbers["win_length"]
        frames = (max(samples, self._shortest) + padding - n_fft) // hop + 1
        second = hop / self.rate  # of a frame
        patch, band = self.numbers["patch_frames"], (float(self.numbers["f_min"]), float(self.numbers["f_max"]))
        starts = cut_starts(frames, patch, self.numbers["patch_hop"])
        return [Span(start * second, (start + patch) * second, band) for start in starts]

    def _blocks(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Stretches of samples that give _BLOCK frames each, the last one fewer, so that an hour fits in memory."""
        n_fft, hop = self.numbers["n_fft"], self.numbers["hop_length"]
        if self.numbers.get("center", False):
            samples = np.pad(samples, n_fft // 2, mode="reflect")
        else:  # torch centres a window shorter than the transform: the first frame must begin with the first sample
            left = (n_fft - self.numbers["win_length"]) // 2
            samples = np.pad(samples, (left, n_fft - self.numbers["win_length"] - left))
        frames = (len(samples) - n_fft) // hop + 1
        for first in range(0, frames, _BLOCK):
            last = min(first + _BLOCK, frames) - 1
            yield samples[first * hop : last * hop + n_fft]

    def _log_mel(self, samples: np.ndarray) -> Tensor:
        spectrum = self.spectrogram(torch.from_numpy(np.ascontiguousarray(samples, np.float32)))  # [n_fft / 2 + 1, T]
        mel = (self.filters @ spectrum).T  # [T, mels]
        scaled: Tensor = ((mel + self.log_offset).log() * self.log_scale - self.mean) / self.std
        return scaled

    def perturb(self, batch: State, rng: np.random.Generator) -> State:
        return {**batch, "x": spec_augment(batch["x"], rng, time=2, mel=3)}  # [B, 1, frames, mels]

    def rows(self, bucket: int) -> int:
        return PATCHES

    def facts(self) -> dict[str, Any]:
        return {
            "mel": {key: self.numbers.get(key) for key in (*_WHOLE, *_REAL, "power", "center", "mel_scale", "norm")},
            "filters": self.filters_digest,
            "log": [self.log_scale, self.log_offset],
            "input": [self.mean, self.std],
            "window": "patches, last shifted back",
            "padding": "silence after the clip to one patch",
            "pooling": "the body's, then mean over patches",
        }


def build_spectrogram(spec: BackboneSpec, random_seed: int | None) -> AudioBackbone:
    """A timm body with its mel front end from a folder with config.json (`framework: timm`) and weights."""
    import timm

    inside = package_folder(spec.location) if spec.source == "package" else None
    folder = inside or Path(spec.location).expanduser()
    config = read_json(folder / "config.json")
    architecture, arguments = config.get("architecture"), dict(config.get("model_args") or {})
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        raise UserError(f"config.json in {folder} names no architecture of timm {timm.__version__}: {architecture!r}")
    front_end = read_front_end(folder, config)

    def build() -> nn.Module:
        try:
            body: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=0, **arguments)
        except Exception as error:
            raise UserError(f"timm can't build {architecture} with model_args {arguments}: {error}") from error
        return body

    def files() -> list[Path]:
        return [folder / spec.options["file"]] if "file" in spec.options else find_weights(folder)

    classifier = str((config.get("pretrained_cfg") or {}).get("classifier", "classifier"))
    body, digest = loaded(build, spec, files, lambda tensors, _: tensors, random_seed, ignore=(f"{classifier}.",))
    body.eval()
    with torch.inference_mode():
        patch = torch.zeros(1, 1, front_end.numbers["patch_frames"], front_end.numbers["n_mels"])
        try:
            dim = int(body(patch).shape[-1])
        except RuntimeError as error:
            raise UserError(
                f"{architecture} in {folder} does not take patches of {list(patch.shape[1:])}: "
                f"{str(error).splitlines()[0]}; check model_args.in_chans and frontend in config.json"
            ) from error
    identity = identity_of(front_end, digest, f"timm {architecture}", arguments, f"timm {timm.__version__}")
    return AudioBackbone(body_segments(body), dim, identity, front_end)


def body_segments(body: Any) -> list[tuple[str, nn.Module]]:
    """`stem`, `block_0` (`layer1` in a ResNet), ..., `pool`; a body of another family is one segment, `body`."""
    from timm.models.efficientnet import EfficientNet
    from timm.models.mobilenetv3 import MobileNetV3
    from timm.models.resnet import ResNet

    if type(body) is ResNet:  # exact: a subclass may compute something else between its blocks
        layers = [(f"layer{i}", Stage(layer)) for i, layer in enumerate(_layers(body), 1)]
        stem = Stage(body.conv1, body.bn1, body.act1, body.maxpool)
        return [("stem", stem), *layers, ("pool", Stage(body.global_pool))]
    if isinstance(body, EfficientNet):
        end: tuple[nn.Module, ...] = (body.conv_head, body.bn2, body.global_pool)
    elif isinstance(body, MobileNetV3):
        end = (body.global_pool, body.conv_head, body.norm_head, body.act2, body.flatten)
    else:
        return [("body", Stage(body))]
    blocks = [(f"block_{index}", Stage(block)) for index, block in enumerate(body.blocks)]
    return [("stem", Stage(body.conv_stem, body.bn1)), *blocks, ("pool", Stage(*end))]


def _layers(body: Any) -> list[nn.Module]:
    return [body.layer1, body.layer2, body.layer3, body.layer4]


def read_front_end(folder: Path, config: Mapping[str, Any]) -> MelPatches:
    """The front end that config.json describes. Raises UserError naming everything that is missing or unusable."""
    numbers = dict(config.get("frontend") or {})
    faults = [f"frontend.{name} is {numbers.get(name)!r}; expected a whole number above 0" for name in _WHOLE
              if not isinstance(numbers.get(name), int) or numbers[name] < 1]  # fmt: skip
    faults += [f"frontend.{name} is {numbers.get(name)!r}; expected a number of Hz" for name in _REAL
               if not isinstance(numbers.get(name), int | float)]  # fmt: skip
    if not isinstance(numbers.get("power"), int | float):
        stated = re.search(r"power=([0-9.]+)", str(numbers.get("spectrum", "")))
        if stated is None:
            faults.append("frontend.power is missing (1 for magnitudes, 2 for energies)")
        else:
            numbers["power"] = float(stated[1])
    log = _LOG.fullmatch(str(numbers.get("log", "")))
    if log is None:
        faults.append(f"frontend.log is {numbers.get('log')!r}; expected 'ln(mel + X)' or 'log10(mel + X)'")
    shape = config.get("pretrained_cfg") or {}
    mean, std = (next(iter(shape.get(key, [default]))) for key, default in (("mean", 0.0), ("std", 1.0)))
    if not float(std):
        faults.append("pretrained_cfg.std is 0")
    if faults or log is None:
        raise UserError(f"unusable front end in {folder / 'config.json'}: {'; '.join(faults)}")
    filters, digest = _filters(folder, numbers)
    return MelPatches(
        rate=int(numbers["sample_rate"]),
        numbers=numbers,
        filters=filters,
        log_scale=1.0 if log[1] == "ln" else 1.0 / math.log(10.0),
        log_offset=float(log[2]),
        mean=float(mean),
        std=float(std),
        filters_digest=digest,
    )


def _filters(folder: Path, numbers: Mapping[str, Any]) -> tuple[Tensor, str]:
    """Mel filters from frontend.safetensors where the folder has one, else torchaudio's, and a name for them."""
    bins = numbers["n_fft"] // 2 + 1
    stored = folder / "frontend.safetensors"
    if stored.is_file():
        tensors = read_weights(stored)
        if "mel" not in tensors or tensors["mel"].shape != (numbers["n_mels"], bins):
            raise UserError(f"{stored} holds no tensor 'mel' of shape [{numbers['n_mels']}, {bins}]")
        return tensors["mel"], weights_digest([stored])
    import torchaudio

    filters: Tensor = torchaudio.functional.melscale_fbanks(
        bins,
        float(numbers["f_min"]),
        float(numbers["f_max"]),
        numbers["n_mels"],
        numbers["sample_rate"],
        norm=numbers.get("norm"),
        mel_scale=numbers.get("mel_scale", "htk"),
    ).T.contiguous()
    return filters, f"torchaudio {torchaudio.__version__}"
