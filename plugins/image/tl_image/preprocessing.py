"""Resize, centre crop and normalisation: a network's own evaluation transform, by its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np

from tl_core import UserError

if TYPE_CHECKING:
    from torch import Tensor

Resize = Literal["short", "cover", "fit", "exact"]
Interpolation = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]

_INTERPOLATIONS = get_args(Interpolation)
"""In Pillow's order, by which transformers' `resample` numbers them."""

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

    def apply(self, image: np.ndarray) -> Tensor:
        """The network's input, float32 [3, H, W], of a uint8 image [H, W, 3].

        Pillow's resampling of the whole image, then the crop: what timm's and torchvision's reference transforms
        compute, to the bit. Where the crop is larger than the resized image, its margin is black.
        """
        import torch
        from PIL import Image

        if self.resize in ("short", "cover"):
            image = _within_aspect(image)
        height, width = self._resized_size(*image.shape[:2])
        resized = Image.fromarray(image).resize((width, height), Image.Resampling[self.interpolation.upper()])
        ground = tuple(round(255 * m) for m in self.mean) if self.resize == "fit" else (0, 0, 0)
        canvas = Image.new("RGB", (self.size[1], self.size[0]), ground)
        canvas.paste(resized, (self._start(width, self.size[1]), self._start(height, self.size[0])))
        pixels = torch.from_numpy(np.array(canvas)).permute(2, 0, 1)  # [H, W, 3] -> [3, H, W]
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        x: Tensor = pixels.contiguous().float().div_(255).sub_(mean).div_(std)
        return x

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

    def _start(self, resized: int, wanted: int) -> int:
        """Where the resized image begins on the canvas: before it (cropped) or inside (padded)."""
        if resized <= wanted:
            return (wanted - resized) // 2
        return -((resized - wanted) // 2) if self.offset == "floor" else -round((resized - wanted) / 2)


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
