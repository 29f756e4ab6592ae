"""Write the image sample set: insects and spiders as 29 illustrators would draw them, in eight classes.

    python samples/make_image.py [--seed 0] [--out data/image]

Needs numpy and Pillow; one seed always gives the same bytes. samples/README.md tells how the set is built.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from creatures import KINDS, creature
from outlines import Part, Points, Rng, moved
from paint import MEDIA, Canvas, Colour, Medium, Painter, clouds, varied
from PIL import Image, ImageFilter
from scenery import GROUNDS, clutter, ground, tint
from table import Row, require_free, with_bad_rows, write

SIDE, CANVAS = 128, 288  # pixels of a file, and of the canvas that it is painted on
QUALITY = 86
TILT = 40.0  # degrees, standard deviation
TRAIN_ARTISTS = 20
EACH = 3  # pictures of every kind by every artist
ARTISTS = (
    "abel", "bodil", "cyril", "dora", "enzo", "freya", "gustav", "hedda", "ilse", "jonas", "katya", "lorenz", "mina",
    "nils", "olga", "pavel", "quinn", "rosa", "sami", "tilda", "ugo", "vera", "wanda", "xenia", "yusuf", "zelda",
    "anton", "birgit", "casper",
)  # fmt: skip


@dataclass(frozen=True)
class Artist:
    """Somebody with a medium, favourite grounds and colours, a lamp and a camera of their own."""

    name: str
    split: str
    medium: Medium
    grounds: tuple[str, ...]
    ground_hue: float
    dark: bool  # draws in light colours on dark grounds
    hues: tuple[float, ...]
    saturation: float
    light: tuple[float, float]
    cast: Colour  # of the lamp and the camera
    blur: float
    grain: float  # noise of the sensor
    vignette: float
    litter: int  # how much lies about, at most


def make_artists(seed: int) -> list[Artist]:
    """The illustrators. Every medium occurs in both splits, in different hands."""
    rng = np.random.default_rng([seed, 0])
    names = [str(name) for name in rng.permutation(ARTISTS)]
    media = list(MEDIA.values())
    artists = []
    for index, name in enumerate(names):
        test = index >= TRAIN_ARTISTS
        angle = rng.uniform(0, 2 * np.pi)
        artists.append(
            Artist(
                name=name,
                split="test" if test else "train",
                medium=varied(media[(index - TRAIN_ARTISTS if test else index) % len(media)], rng),
                grounds=tuple(str(kind) for kind in rng.choice(list(GROUNDS), 3, replace=False)),
                ground_hue=rng.random(),
                dark=bool(rng.random() < 0.3),
                hues=tuple(rng.random(4).tolist()),
                saturation=rng.uniform(0.3, 0.95),
                light=(float(np.cos(angle)), float(np.sin(angle))),
                cast=tint(rng.random(), rng.uniform(0, 0.18), 1.0),
                blur=rng.uniform(0.0, 1.3),
                grain=rng.uniform(0.0, 0.02),
                vignette=rng.uniform(0.0, 0.25),
                litter=int(rng.integers(2, 7)),
            )
        )
    return artists


def picture(kind: str, artist: Artist, rng: Rng) -> Image.Image:
    """One picture of a kind by an artist, RGB of SIDE x SIDE."""
    value = rng.uniform(0.2, 0.38) if artist.dark else rng.uniform(0.75, 1.0)
    kind_of_ground = artist.grounds[int(rng.integers(len(artist.grounds)))]
    canvas = ground(kind_of_ground, CANVAS, (artist.ground_hue + rng.normal(0, 0.06)) % 1, value, rng)
    painter = Painter(artist.medium, clouds(CANVAS, 90, rng, 2), artist.light, rng)
    painter.paint(canvas, clutter(CANVAS, int(rng.integers(artist.litter + 1)), rng), _colours(artist, rng))
    place, reach = _pose(rng)
    painter.paint(canvas, [moved(part, place) for part in creature(kind, rng)], _colours(artist, rng))
    if rng.random() < 0.3:
        painter.paint(canvas, _cover(reach, rng), _colours(artist, rng))
    return _photographed(canvas, artist, rng)


def _colours(artist: Artist, rng: Rng) -> dict[str, Colour]:
    """Colours of the roles: the artist's hues, light on dark grounds and dark on light ones, whatever the kind."""
    values = rng.uniform(0.7, 1.0, 5) if artist.dark else rng.uniform(0.1, 0.66, 5)
    values[2] = np.clip(values[2] + rng.uniform(-0.1, 0.25), 0, 1)
    colours = {}
    for role, value in zip(("body", "second", "wing", "mark", "limb"), values):
        hue = (float(rng.choice(artist.hues)) + rng.normal(0, 0.03)) % 1
        colours[role] = tint(hue, artist.saturation * rng.uniform(0.5, 1.1), value)
    return colours


def _pose(rng: Rng) -> tuple[Callable[[Points], Points], tuple[Points, float]]:
    """From body units to the canvas: turned, sheared, scaled and put somewhere; and its centre and radius there."""
    scale = rng.uniform(0.41, 0.54) * CANVAS
    angle, shear, squeeze = rng.normal(0, np.radians(TILT)), rng.normal(0, 0.1), rng.uniform(0.85, 1.0)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[1.0, shear], [0.0, squeeze]]) @ np.array([[c, s], [-s, c]]) * scale
    slack = max(0.05 * CANVAS, 0.5 * CANVAS - 0.9 * scale)
    centre = 0.5 * CANVAS + rng.uniform(-slack, slack, 2)
    return (lambda p: p @ turn + centre), (centre, scale)


def _cover(reach: tuple[Points, float], rng: Rng) -> list[Part]:
    """One or two things that lie over the creature, off its middle."""
    centre, scale = reach
    parts = []
    for thing in clutter(CANVAS, int(rng.integers(1, 3)), rng):
        angle = rng.uniform(0, 2 * np.pi)
        target = centre + scale * rng.uniform(0.5, 1.0) * np.array([np.cos(angle), np.sin(angle)])
        shift = target - thing.outline.mean(axis=0)
        parts.append(moved(thing, lambda p, shift=shift: p + shift))  # type: ignore[misc]
    return parts


def _photographed(canvas: Canvas, artist: Artist, rng: Rng) -> Image.Image:
    """The sheet under the artist's lamp, as their camera sees it."""
    y, x = np.mgrid[:CANVAS, :CANVAS].astype(np.float32) / CANVAS - 0.5
    light = 1 + 0.35 * rng.uniform(0, 1) * (x * artist.light[0] + y * artist.light[1])
    light *= 1 - artist.vignette * 2 * (x**2 + y**2)
    shown = canvas * light[..., None] * np.asarray(artist.cast, np.float32) * rng.uniform(0.95, 1.2)
    sheet = Image.fromarray((np.clip(shown, 0, 1) * 255).astype(np.uint8))
    sheet = sheet.filter(ImageFilter.GaussianBlur(artist.blur * rng.uniform(0.5, 1.3)))
    small = np.asarray(sheet.resize((SIDE, SIDE), Image.Resampling.LANCZOS), np.float32) / 255
    small = small + rng.normal(0, artist.grain, small.shape).astype(np.float32)
    return Image.fromarray((np.clip(small, 0, 1) * 255).astype(np.uint8))


def make_rows(seed: int, few: int | None = None) -> list[Row]:
    """All rows in file order: EACH pictures of every kind by every artist, and six bad ones.

    few: so many artists of each split; None: all.
    """
    everyone = make_artists(seed)
    people = [*everyone[:TRAIN_ARTISTS][:few], *everyone[TRAIN_ARTISTS:][:few]]
    rows = [_row(seed, artist, kind, index) for artist in people for kind in KINDS for index in range(EACH)]
    return with_bad_rows(rows, _row(seed, people[0], "moth", EACH), np.random.default_rng([seed, 2]))


def _row(seed: int, artist: Artist, kind: str, index: int) -> Row:
    rng = np.random.default_rng([seed, 1, ARTISTS.index(artist.name), list(KINDS).index(kind), index])
    file = f"{artist.split}/{kind}/{artist.name}_{index}.jpg"
    return Row(file, kind, artist.split, artist.name, _jpeg(picture(kind, artist, rng)))


def _jpeg(shown: Image.Image) -> bytes:
    file = io.BytesIO()
    shown.save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the sample set of drawn insects and spiders.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("data/image"))
    parser.add_argument("--few", type=int, help="only so many artists of each split, for a quick look")
    arguments = parser.parse_args()
    require_free(arguments.out)
    write(make_rows(arguments.seed, arguments.few), arguments.out, group="artist")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
