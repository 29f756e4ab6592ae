"""Resize and centre crop: a network's own evaluation transform, by its numbers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np

from tl_core import UserError

if TYPE_CHECKING:
    from torch import Tensor

Resize = Literal["short", "cover", "fit", "exact"]
Interpolation = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]

_INTERPOLATIONS = get_args(Interpolation)
"""In Pillow's order, by which transformers' `resample` numbers them."""

_BY_TORCH = ("bilinear", "bicubic")
"""torch has Pillow's antialiased filter for these, some five times as fast; it computes bytes with coarser weights."""

MAX_ASPECT = 8
"""Longer images are cut centrally before resizing: what is cut lies outside the centre crop, and a strip of
2 x 60,000 pixels would otherwise be blown up to gigabytes."""


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of its input.

    size: height and width it takes. resize: how the image meets `scale` (height, width): `short` brings its shorter
    side to scale[0], `cover` the smallest size that covers scale, `fit` the largest inside it (on a ground of the
    mean colour), `exact` scale itself. mean, std: of the channels, for pixels in 0..1.
    """

    size: tuple[int, int]
    resize: Resize
    scale: tuple[int, int]
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    offset: Literal["round", "floor"] = "round"

    @property
    def facts(self) -> dict[str, Any]:
        """The numbers as JSON-able values, for the backbone's identity."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @property
    def resizer(self) -> str:
        """What resizes, for the backbone's identity: Pillow by its version, torch by what it makes of a test picture.

        torch's versions come often and change many things, hardly ever this one: features should travel between them.
        """
        if self.interpolation in _BY_TORCH:
            return f"torch {_torch_digest(self.interpolation)}"
        import PIL

        return f"pillow {PIL.__version__}"

    @property
    def need(self) -> tuple[int, int] | None:
        """Height and width that `ImageLoader.decode_for` must keep well above; None for the picture as it is.

        The size before the crop; with `nearest`, single pixels of the whole picture count.
        """
        return None if self.interpolation == "nearest" else self.scale

    def apply(self, image: np.ndarray) -> Tensor:
        """The network's input before normalisation, uint8 [3, H, W], of a uint8 image [H, W, 3].

        The whole image is resampled, then cropped, as the reference transforms of timm, torchvision and transformers
        do. Those of transformers give the same values. Against Pillow, horizontally first, none differs by more than
        2 of 255, the mean difference is at most 0.05 (0.01 from 224 pixels on), with `nearest`, `lanczos`, `box` and
        `hamming` 0. Pillow 13 takes tall images vertically first: of photos some pixels then differ by up to 6, 0.25
        on average. Where the crop is larger than the resized image, its margin is black. Starts no threads.
        """
        import torch

        if self.resize in ("short", "cover"):
            image = _within_aspect(image)
        size = self._resized_size(*image.shape[:2])
        resized = (_by_torch if self.interpolation in _BY_TORCH else _by_pillow)(image, size, self.interpolation)
        canvas = np.zeros((3, *self.size), np.uint8)
        if self.resize == "fit":
            canvas += np.array([round(255 * m) for m in self.mean], np.uint8)[:, None, None]
        rows, columns = (self._overlap(*sides) for sides in zip(size, self.size, strict=True))
        canvas[:, rows[1], columns[1]] = resized[:, rows[0], columns[0]]
        return torch.from_numpy(canvas)

    def seen(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Where the network's input lies in a picture of this size: top, left, bottom and right in shares of it.

        Below 0 and above 1 where the input has a margin around the picture.
        """
        sides = []
        within = [min(side, MAX_ASPECT * min(height, width)) for side in (height, width)]
        if self.resize not in ("short", "cover"):
            within = [height, width]
        for whole, cut, resized, wanted in zip((height, width), within, self._resized_size(*within), self.size):
            on_picture, on_canvas = self._overlap(resized, wanted)
            scale = cut / resized  # pixels of the picture in one of the input
            first = (whole - cut) // 2 + (on_picture.start - on_canvas.start) * scale
            sides.append((first / whole, (first + wanted * scale) / whole))
        (top, bottom), (left, right) = sides
        return top, left, bottom, right

    def _resized_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width before the crop, rounded as torchvision (`short`) and timm (`cover`, `fit`) do."""
        if self.resize == "exact":
            return self.scale
        if self.resize == "short":
            short = self.scale[0]
            if width <= height:
                return int(short * height / width), short
            return short, int(short * width / height)
        ratios = (height / self.scale[0], width / self.scale[1])
        ratio = min(ratios) if self.resize == "cover" else max(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def _overlap(self, resized: int, wanted: int) -> tuple[slice, slice]:
        """Where the resized image and the canvas overlap, on the one and on the other."""
        if resized <= wanted:
            start = (wanted - resized) // 2
            return slice(0, resized), slice(start, start + resized)
        start = (resized - wanted) // 2 if self.offset == "floor" else round((resized - wanted) / 2)
        return slice(start, start + wanted), slice(0, wanted)


def _by_torch(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """uint8 [H, W, 3] to [3, *size]. Runs in the calling thread, unlike torch's copies of large tensors."""
    import torch

    batch = torch.from_numpy(np.require(image[None], requirements=["C", "W"]))  # [1, H, W, 3]
    resize = torch.nn.functional.interpolate
    resized: np.ndarray = resize(batch.permute(0, 3, 1, 2), size, mode=interpolation, antialias=True)[0].numpy()
    return resized


@cache
def _torch_digest(interpolation: str) -> str:
    """16 hex digits over a picture of busy numbers, made smaller and larger by torch."""
    image = (np.arange(61 * 97 * 3, dtype=np.uint64) ** 2 * 2654435761 >> 13).astype(np.uint8).reshape(61, 97, 3)
    sizes = ((23, 41), (7, 96), (130, 64))
    resized = b"".join(_by_torch(image, size, interpolation).tobytes() for size in sizes)
    return hashlib.sha256(resized).hexdigest()[:16]


def _by_pillow(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """uint8 [H, W, 3] to [3, *size]."""
    from PIL import Image

    resized = Image.fromarray(image).resize(size[::-1], Image.Resampling[interpolation.upper()])
    return np.asarray(resized).transpose(2, 0, 1)


def _within_aspect(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    most = MAX_ASPECT * min(height, width)
    top, left = max(0, height - most) // 2, max(0, width - most) // 2
    return np.ascontiguousarray(image[top : top + most, left : left + most])


def from_data_config(values: Mapping[str, Any], where: str, size: int | None = None) -> Preprocessing:
    """Numbers as timm names them (`input_size`, `crop_pct`, `crop_mode`, `interpolation`, `mean`, `std`).

    size: side of the input where the network's arguments set one. What is absent takes timm's default. Raises
    UserError, naming `where`, for an input that is no RGB image or an interpolation that is not supported.
    """
    from timm.data import resolve_data_config

    try:
        data = resolve_data_config({"img_size": size} if size else {}, pretrained_cfg=dict(values))
        channels, height, width = (int(n) for n in data["input_size"])
        mean, std = _three(data["mean"]), _three(data["std"])
        crop_pct = float(data["crop_pct"])
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"unusable preprocessing in {where}: {error}") from error
    if channels != 3:
        raise UserError(f"{where} takes images of {channels} channels; only RGB (3 channels) is supported")
    scale = (math.floor(height / crop_pct), math.floor(width / crop_pct))
    modes: dict[str, Resize] = {"squash": "exact", "border": "fit"}
    resize = modes.get(data["crop_mode"], "short" if scale[0] == scale[1] else "cover")
    return Preprocessing((height, width), resize, scale, _interpolation(data["interpolation"], where), mean, std)


def from_image_processor(values: Mapping[str, Any], where: str) -> Preprocessing:
    """Numbers as transformers' image processors name them (`size`, `crop_size`, `resample`, `image_mean`, ...).

    Raises UserError, naming `where`, for a processor whose output has no fixed size or that does more than resize,
    crop and normalise.
    """
    size, crop, crop_pct = values.get("size") or {}, values.get("crop_size") or {}, values.get("crop_pct")
    if not values.get("do_resize") or values.get("do_pad") or values.get("rescale_offset"):
        raise UserError(f"unusable image processor in {where}: expected do_resize without do_pad and rescale_offset")
    target = (int(crop["height"]), int(crop["width"])) if values.get("do_center_crop") and "height" in crop else None
    if "shortest_edge" in size:
        short = int(size["shortest_edge"])
        if target is not None:
            resize, scale = "short", (short, short)
        elif crop_pct and short < 384:  # ConvNext's rule; from 384 pixels on it squashes
            resize, scale, target = "short", (int(short / crop_pct),) * 2, (short, short)
        elif crop_pct:
            resize, scale, target = "exact", (short, short), (short, short)
        else:
            raise UserError(f"unusable image processor in {where}: size shortest_edge needs do_center_crop")
    elif "height" in size:
        resize, scale = "exact", (int(size["height"]), int(size["width"]))
        target = target or scale
    else:
        raise UserError(f"unusable image processor in {where}: size {dict(size)} is neither shortest_edge nor height")
    gain = 255 * float(values["rescale_factor"]) if values.get("do_rescale") else 255.0
    gain = 1.0 if math.isclose(gain, 1.0) else gain
    normalise = values.get("do_normalize")
    mean = _three(values["image_mean"] if normalise else (0.0, 0.0, 0.0))
    std = _three(values["image_std"] if normalise else (1.0, 1.0, 1.0))
    resample = int(values.get("resample") or 0)
    return Preprocessing(
        size=target,
        resize=cast(Resize, resize),
        scale=scale,
        interpolation=_interpolation(_INTERPOLATIONS[resample] if resample in range(6) else str(resample), where),
        mean=_three(m / gain for m in mean),
        std=_three(s / gain for s in std),
        offset="floor",
    )


def _interpolation(name: str, where: str) -> Interpolation:
    if name not in _INTERPOLATIONS:
        raise UserError(f"no interpolation {name!r}, which {where} asks for; allowed: {', '.join(_INTERPOLATIONS)}")
    return cast(Interpolation, name)


def _three(values: Any) -> tuple[float, float, float]:
    numbers = tuple(float(v) for v in values)
    numbers = numbers * 3 if len(numbers) == 1 else numbers
    if len(numbers) != 3:
        raise ValueError(f"expected a value per RGB channel, found {len(numbers)}")
    return numbers
