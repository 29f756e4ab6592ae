"""The rendered images on disk, written once."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from samples.pretrain.image import formulas
from samples.pretrain.image.settings import Settings

_FLUSH_EVERY = 50  # classes; what a kill loses


def rendered(settings: Settings, path: Path) -> np.ndarray:
    """All images, a memory map uint8 [classes * images, side, side, 3] in the order of classes.

    Renders what is missing at `path`, from where a killed run stopped. Raises OSError where the disk has no room.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _render(settings, path)
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


def _render(settings: Settings, path: Path) -> None:
    shape = (settings.classes * settings.images, settings.side, settings.side, 3)
    partial, done = path.with_suffix(".partial"), path.with_suffix(".done")
    goes_on = partial.exists() and done.exists()
    if not goes_on:
        done.unlink(missing_ok=True)  # of a file that is no longer there: it would pass for progress of the new one
    images = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
        partial, mode="r+" if goes_on else "w+", dtype=np.uint8, shape=shape
    )
    if hasattr(os, "posix_fallocate"):  # a memory map of a file with holes would die of a bus error on a full disk
        with partial.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, partial.stat().st_size)
    shared = formulas.banks(settings.seed, settings.side)
    began = time.monotonic()
    for label in range(int(done.read_text()) if goes_on else 0, settings.classes):
        drawn = formulas.render(label, settings.classes, settings.images, settings.side, settings.seed, shared)
        images[label * settings.images : (label + 1) * settings.images] = drawn.numpy()
        if (label + 1) % _FLUSH_EVERY == 0:
            images.flush()
            fresh = done.with_suffix(".new")
            fresh.write_text(str(label + 1))
            fresh.replace(done)
            seconds = time.monotonic() - began
            print(f"drew {label + 1} of {settings.classes} classes in {seconds:.0f} s", file=sys.stderr, flush=True)
    images.flush()
    partial.replace(path)
    done.unlink(missing_ok=True)
