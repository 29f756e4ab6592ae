"""What can be said of a picture without a network: a thumbnail's pixels, its colours and the run of its edges."""

from __future__ import annotations

import numpy as np

SIDE = 64  # pixels a side of the picture that all is taken from, its aspect given up
THUMBNAIL = 16  # pixels a side
CELLS = 8  # a side, of edges
ANGLES = 9  # over half a turn: a line has no direction
LEVELS = 4  # of each channel in the histogram of colours


def plain(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] to float32 [1408]: 768 pixels, 64 colours, 576 gradients by cell and angle."""
    from PIL import Image

    small = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX))  # [64, 64, 3]
    shrunk = small.reshape(THUMBNAIL, SIDE // THUMBNAIL, THUMBNAIL, SIDE // THUMBNAIL, 3).mean(axis=(1, 3))
    thumbnail = shrunk.ravel() / 255
    return np.concatenate([thumbnail, _colours(small), _edges(small)]).astype(np.float32)


def _colours(pixels: np.ndarray) -> np.ndarray:
    """Roots of the shares of pixels in each of 4 x 4 x 4 colours, [64]."""
    red, green, blue = (pixels.reshape(-1, 3).astype(np.int64) * LEVELS // 256).T
    counts = np.bincount((red * LEVELS + green) * LEVELS + blue, minlength=LEVELS**3)
    return np.asarray(np.sqrt(counts / counts.sum()))


def _edges(pixels: np.ndarray) -> np.ndarray:
    """Gradients by cell and angle, each cell's scaled by its neighbourhood's: [576]. Dalal and Triggs, CVPR 2005."""
    grey = pixels.astype(np.float64) @ (0.299, 0.587, 0.114)
    down, right = np.gradient(grey)
    length, angle = np.hypot(right, down), np.arctan2(down, right) % np.pi / np.pi * ANGLES  # [64, 64]
    below = np.floor(angle).astype(np.int64)
    share = angle - below  # between two angles a gradient counts for both
    row, column = np.indices(grey.shape) * CELLS // SIDE
    cell = (row * CELLS + column) * ANGLES
    sums = np.zeros(CELLS * CELLS * ANGLES)
    for bin_, weight in ((below, 1 - share), (below + 1, share)):
        sums += np.bincount((cell + bin_ % ANGLES).ravel(), (length * weight).ravel(), len(sums))
    cells = sums.reshape(CELLS, CELLS, ANGLES)
    energy = np.pad((cells**2).sum(axis=2), 1, mode="edge")
    around = sum(energy[r : r + CELLS, c : c + CELLS] for r in range(3) for c in range(3))  # [8, 8]
    return np.asarray((cells / np.sqrt(around + 1e-3 * SIDE)[..., None]).ravel())
