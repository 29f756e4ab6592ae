"""What is looked at in an image file, and which images a backbone does not suit: sizes, shapes and channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tl_core import BackboneSpec, Facts, FitWarning

if TYPE_CHECKING:
    from PIL.Image import Image

TINY = 0.5  # of the input's side: enlarged more than twice, most of what the network sees is interpolated
HUGE = 8.0  # times the input's side: 64 pixels of the file become one
LONG = 2.0  # long side to short side: past it a centred square is less than half of the image
MANY = 0.1  # share of the images that is worth a line
MOST = 0.5  # share of the images whose size is the data's
ALPHA_PIXELS = 4_000_000  # whether a larger image lets the ground through is not looked at: it takes decoding
OFFERED = 2  # backbones that a remedy names

_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_MOVING = ("GIF", "PNG", "WEBP")  # in a JPEG, a second picture is a preview
_PNG = b"\x89PNG\r\n\x1a\n"
_BITS_PER_SAMPLE = 258  # a TIFF tag

Catalogue = Callable[[], Sequence[BackboneSpec]]
"""Where backbones that suit better are looked for."""


def measure(image: Image, head: bytes, sideways: bool) -> Facts:
    """Of the file: height and width upright, bits a channel; grey, moving and transparent as 0 or 1.

    head: the file's first bytes; sideways: whether EXIF turns the image by a quarter. Decodes nothing but alpha.
    """
    width, height = image.size[::-1] if sideways else image.size
    facts: dict[str, float | str] = {
        "height": height,
        "width": width,
        "bits": _bits(image, head),
        "grey": float(_is_grey(image, head)),
        "moving": float(image.format in _MOVING and bool(getattr(image, "is_animated", False))),
    }
    if image.mode not in _ALPHA and "transparency" not in image.info:
        facts["transparent"] = 0.0
    elif width * height <= ALPHA_PIXELS:
        least, _ = image.convert("RGBA").getchannel("A").getextrema()
        facts["transparent"] = float(least < 255)  # type: ignore[operator]  # of one channel: a number
    return facts


def misfits(spec: BackboneSpec, facts: Sequence[Facts], catalogue: Catalogue) -> list[FitWarning]:
    """Images far smaller or larger than the input, long ones, and files that hold more or less than 8-bit RGB."""
    return [*_size(spec, facts, catalogue), *_shape(spec, facts), *_channels(spec, facts)]


def _size(spec: BackboneSpec, facts: Sequence[Facts], catalogue: Catalogue) -> list[FitWarning]:
    if not _side(spec):
        return []
    sides = np.array([min(float(fact["height"]), float(fact["width"])) for fact in facts])
    tiny, huge = sides < TINY * _side(spec), sides > HUGE * _side(spec)
    if tiny.mean() >= MOST:
        side = float(np.median(sides))
        smaller = [other for other in catalogue() if 0 < _side(other) <= side / TINY]
        smaller.sort(key=lambda other: (abs(math.log(_side(other) / side)), other.params or 0))
        names = " or ".join(other.name for other in smaller[:OFFERED])
        return [
            FitWarning(
                "image size",
                f"half of the images are at most {side:.0f} pixels high or wide, enlarged {_side(spec) / side:.1f} "
                f"times to {_side(spec)}: fine detail is made up",
                f"use larger originals where there are any{f', or choose {names}' if names else ''}",
            )
        ]
    if huge.mean() >= MOST:
        factor = float(np.median(sides)) / _side(spec)
        return [
            FitWarning(
                "image size",
                f"half of the images are at least {np.median(sides):,.0f} pixels high and wide, shrunk {factor:.0f} "
                f"times to {_side(spec)}: what is less than {factor:.0f} pixels across is lost",
                "where small things decide the label, cut the images to them or into tiles",
            )
        ]
    return []


def _shape(spec: BackboneSpec, facts: Sequence[Facts]) -> list[FitWarning]:
    height, width = spec.takes.get("height"), spec.takes.get("width")
    if not height or height != width:
        return []
    ratios = np.array([_ratio(float(fact["height"]), float(fact["width"])) for fact in facts])
    share = float((ratios > LONG).mean())
    if share < MANY:
        return []
    return [
        FitWarning(
            "image shape",
            f"{share:.0%} of the images are over {LONG:.0f} times as long as wide; of those a square input shows less "
            "than half, or all of it squeezed",
            "cut them to what matters, or pad them to squares",
        )
    ]


def _channels(spec: BackboneSpec, facts: Sequence[Facts]) -> list[FitWarning]:
    found = []
    if spec.takes.get("channels") == 3 and (share := _share(facts, "grey")) >= MANY:
        found.append(
            FitWarning(
                "channels",
                f"{share:.0%} of the files are grey; the three colour channels that go in will be equal",
                "nothing is lost; where the originals have colour, use those",
            )
        )
    if (share := _share(facts, "transparent")) >= MANY:
        found.append(
            FitWarning(
                "channels",
                f"{share:.0%} of the images are transparent in places; those become white",
                "lay them over the ground that new images will have, where that is another",
            )
        )
    deep = [float(fact["bits"]) for fact in facts if float(fact["bits"]) > 8]
    if len(deep) >= MANY * len(facts):
        found.append(
            FitWarning(
                "channels",
                f"{len(deep) / len(facts):.0%} of the files have {max(deep):.0f} bits a channel; the top 8 are kept",
                "where their values fill only a part of that range, stretch them to 8 bits first",
            )
        )
    if (share := _share(facts, "moving")) >= MANY:
        found.append(
            FitWarning(
                "frames",
                f"{share:.0%} of the files are animated; only their first frame is seen",
                "save the frame that shows the label as a file of its own",
            )
        )
    return found


def _side(spec: BackboneSpec) -> int:
    """The shorter side of the input in pixels, 0 where it is not known."""
    return int(min(spec.takes.get("height") or 0, spec.takes.get("width") or 0))


def _share(facts: Sequence[Facts], name: str) -> float:
    """Share of the images that are so, among those where it is known."""
    known = [float(fact[name]) for fact in facts if name in fact]
    return sum(known) / len(known) if known else 0.0


def _ratio(height: float, width: float) -> float:
    return max(height, width) / min(height, width)


def _is_grey(image: Image, head: bytes) -> bool:
    if head.startswith(_PNG):  # the colour type: Pillow opens some grey files as RGBA
        return head[25] in (0, 4)
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")


def _bits(image: Image, head: bytes) -> int:
    """Bits of a channel in the file; Pillow tells those of PNG and TIFF less 16-bit RGB by its mode."""
    if head.startswith(_PNG):
        return head[24]
    tags = getattr(image, "tag_v2", {})
    if tags:
        return int(max(np.atleast_1d(tags.get(_BITS_PER_SAMPLE, 1))))
    return 8
