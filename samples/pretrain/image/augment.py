"""Random crops, flips and colours of a whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samples.pretrain.image.fields import Rng, tensor
from samples.pretrain.image.settings import Settings


def augmented(
    images: np.ndarray, side: int, mean: Sequence[float], std: Sequence[float], settings: Settings, rng: Rng
) -> Tensor:
    """The network's input, float32 [B, 3, side, side], of uint8 images [B, H, W, 3]."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    x = _recoloured(_cropped(x, side, settings.smallest_crop, rng), settings.grey, rng)
    return (x - tensor(mean)[:, None, None]) / tensor(std)[:, None, None]


def _cropped(x: Tensor, side: int, smallest: float, rng: Rng) -> Tensor:
    """A part of each image, its area from `smallest` to all of it, its sides up to 3:4, mirrored by chance."""
    n = len(x)
    area, aspect = rng.uniform(smallest, 1, n), np.exp(rng.uniform(-0.29, 0.29, n))
    width, height = np.minimum(np.sqrt(area * aspect), 1), np.minimum(np.sqrt(area / aspect), 1)
    affine = np.zeros((n, 2, 3))
    affine[:, 0, 0], affine[:, 1, 1] = width * rng.choice([-1.0, 1.0], n), height
    affine[:, 0, 2] = (1 - width) * rng.uniform(-1, 1, n)
    affine[:, 1, 2] = (1 - height) * rng.uniform(-1, 1, n)
    grid = F.affine_grid(tensor(affine), [n, 3, side, side], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _recoloured(x: Tensor, grey_share: float, rng: Rng) -> Tensor:
    """Other saturation (some images without any), white balance, brightness and contrast."""
    n = len(x)

    def each(values: np.ndarray) -> Tensor:
        return tensor(values)[:, None, None, None]

    grey = x.mean(dim=1, keepdim=True)
    saturation = np.where(rng.random(n) < grey_share, 0, np.exp(rng.normal(0, 0.35, n)))
    x = grey + each(saturation) * (x - grey)
    x = x * tensor(np.exp(rng.normal(0, 0.12, (n, 3))))[:, :, None, None]
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    bright, contrast = np.exp(rng.normal(0, 0.25, n)), np.exp(rng.normal(0, 0.3, n))
    return (mean * each(bright) + each(contrast) * (x - mean)).clamp(0, 1)
