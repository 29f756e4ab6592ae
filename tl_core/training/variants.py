"""Augmented variants that can be stored: the sample's bytes, a seed and a number decide which one it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tl_core.digests import file_digest, text_digest
from tl_core.errors import DecodeError
from tl_core.types import Backbone, Loader, Source

DRAW_VERSION = 1
"""Part of a variant's fingerprint: raised when the same seed, number and sample draw another variant."""


class Variant(Loader):
    """A loader whose samples come augmented, the same variant of each whenever it is decoded.

    loader: whose augment() makes the variants; seed, number: with the sample's bytes all that decides which.
    """

    modality = "variant"  # never registered
    extensions = frozenset()

    def __init__(self, loader: Loader, seed: int, number: int) -> None:
        self._loader, self._seed, self._number = loader, seed, number

    @property
    def augmentation(self) -> Mapping[str, Any]:
        """What decides the variants, for `Identity.augmentation`."""
        return {
            "draw": DRAW_VERSION,
            "augment": self._loader.augment_version,
            "seed": self._seed,
            "number": self._number,
        }

    def decode(self, source: Source) -> Any:
        whole = self._loader.decode(source)
        try:
            digest = file_digest(source) if isinstance(source, Path) else text_digest(source)
        except OSError as error:
            raise DecodeError(f"unreadable: {error.strerror or error}") from error
        return self._loader.augment(whole, np.random.default_rng([self._seed, self._number, int(digest, 16)]))

    def render(self, source: Source) -> str:
        return self._loader.render(source)

    def seen_by(self, backbone: Backbone) -> Backbone:
        """The same network, its weights shared, under the fingerprint of features of these variants."""
        twin = copy.copy(backbone)
        twin.identity = replace(backbone.identity, augmentation=self.augmentation)
        return twin
