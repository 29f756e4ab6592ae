"""What every audio backbone shares: the chain over windows, and pretrained weights read and identified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from tl_audio.frontends import FrontEnd, Span, preprocessing, resampled, stacked
from tl_audio.loader import AudioLoader, Clip
from tl_core import (
    Backbone,
    BackboneSpec,
    Identity,
    Prepared,
    State,
    UserError,
    drawn_digest,
    load_strict,
    random_weights,
    read_weights,
    weights_digest,
)

M = TypeVar("M", bound=nn.Module)


class AudioBackbone(Backbone):
    """An encoder with the front end that feeds it. Every sample of a clip is seen, so nothing is ever truncated.

    prefix: the first tokens of its states, which stand for no place of the sound; grid: how many of the others stand
    one above the other, from low to high frequency, where they are patches of a spectrogram; 1 for frames.
    A state at an inner cut is taken as it is: frames that fill a window up were computed with the clip's own, and
    `frames` says how many count.
    """

    ragged = True

    def __init__(
        self,
        segments: Sequence[tuple[str, nn.Module]],
        feature_dim: int,
        identity: Identity,
        front_end: FrontEnd,
        *,
        prefix: int = 0,
        grid: int = 1,
    ) -> None:
        super().__init__(segments, feature_dim, identity)
        self.front_end = front_end
        self._prefix = prefix
        self._grid = grid

    def prepare(self, decoded: Clip) -> Prepared:
        """Resample to the encoder's rate and cut into windows."""
        return Prepared(self.front_end.windows(resampled(decoded.samples, decoded.rate, self.front_end.rate)))

    def collate(self, windows: Sequence[State]) -> State:
        return stacked(windows)

    def perturb(self, state: State, rng: np.random.Generator) -> State:
        """Spectrograms with bands and stretches of time hidden (SpecAugment); samples as they are."""
        return self.front_end.perturb(state, rng)

    def bucket(self, window: State) -> int:
        return self.front_end.bucket(window)

    def batch_size(self, bucket: int) -> int:
        return self.front_end.rows(bucket)

    def example(self) -> State:
        """A second of a tone."""
        time = np.arange(self.front_end.rate, dtype=np.float32) / self.front_end.rate
        return self.front_end.windows(np.sin(2 * np.pi * 440 * time, dtype=np.float32))[0]

    def pooled(self, state: State) -> Tensor:
        """The mean over the frames that lie within the clip, over a spectrogram's places, or over its tokens."""
        if state["x"].ndim == 3:
            state = {**state, "x": state["x"][:, self._prefix :]}  # [B, T, D]
        return super().pooled(state)

    def spatial(self, state: State) -> Tensor | None:
        """Frequencies, the highest first, by time."""
        x = state["x"]
        if x.ndim == 4:
            x = x.transpose(2, 3)  # [B, C, frames, mels] -> [B, C, mels, frames]
            return x.flip(2)
        if x.ndim != 3:
            return None
        tokens = x[:, self._prefix :].transpose(1, 2)  # [B, T, D] -> [B, D, T]
        return tokens.reshape(*tokens.shape[:2], self._grid, -1).flip(2)

    def places(self, decoded: Clip) -> list[Span]:
        return self.front_end.spans(len(resampled(decoded.samples, decoded.rate, self.front_end.rate)))


class Stage(nn.Module):
    """A segment: modules one after the other over `x`; other keys ride along."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, state: State) -> State:
        x = state["x"]
        for part in self.parts:
            x = main_output(part(x))
        return {**state, "x": x}


class FramePool(nn.Module):
    """A segment: the last norm, then the mean over the frames that lie within the clip."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, state: State) -> State:
        x = self.norm(state["x"]).float()  # [B, T, D]
        frames = state["frames"].unsqueeze(1)
        within = torch.arange(x.shape[1], device=x.device) < frames  # [B, T]
        return {"x": (x * within.unsqueeze(2)).sum(dim=1) / frames}  # [B, T, D] -> [B, D]


def main_output(output: Any) -> Tensor:
    """The main tensor of a library's layer, which some versions return in a tuple."""
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


def loaded(
    build: Callable[[], M],
    spec: BackboneSpec,
    files: Callable[[], Sequence[Path]],
    rename: Callable[[dict[str, Tensor], set[str]], dict[str, Tensor]],
    random_seed: int | None,
    ignore: Sequence[str] = (),
) -> tuple[M, str]:
    """The network with its pretrained weights and their digest, or with random ones and their name.

    files: called only where weights are read; rename: maps the file's tensors to the network's own names.
    Raises UserError where the weights are missing, unreadable, not the expected ones or of another architecture.
    """
    module = random_weights(build, random_seed or 0)  # also where weights follow: no draw from the global generator
    if random_seed is not None:
        return module, drawn_digest(module)
    found = list(files())
    digest = weights_digest(found)
    if spec.sha256 is not None and digest != spec.sha256:
        fetch = f"fetch {', '.join(map(str, found))} again"
        remedy = "reinstall the package that brings them" if spec.source == "package" else fetch
        raise UserError(
            f"the weights of {spec.name} are not the expected ones: sha256 {digest[:16]}..., expected "
            f"{spec.sha256[:16]}...; {remedy}"
        )
    tensors = rename(read_weights(found), set(module.state_dict()))
    return load_strict(module, tensors, spec.name, ignore), digest


def modern_names(tensors: Mapping[str, Tensor], expected: set[str]) -> dict[str, Tensor]:
    """Tensors with weight-norm parameters under their present names (`weight_g`, `weight_v` until torch 2)."""
    now = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}
    renamed = {}
    for key, tensor in tensors.items():
        for old, new in now.items():
            if key not in expected and key.endswith(old):
                key = key.removesuffix(old) + new
        renamed[key] = tensor
    return renamed


def identity_of(
    front_end: FrontEnd, weights: str, architecture: str, settings: Mapping[str, Any], revision: str | None = None
) -> Identity:
    """Identity of a backbone; `settings` (the network's shape) count as part of the architecture."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
    return Identity(
        weights=weights,
        preprocessing=preprocessing(front_end, AudioLoader.version),
        architecture=f"{architecture} {digest[:16]}",
        revision=revision,
    )
