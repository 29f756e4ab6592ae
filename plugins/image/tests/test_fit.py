"""What is seen in image files without decoding them, and what is said of backbones that they don't suit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tl_image import fit
from tl_image.catalogue import catalogue
from tl_image.loader import ImageLoader

from tl_core import BackboneSpec, DecodeError, Facts

LOADER = ImageLoader()
RNG = np.random.default_rng(0)


def net(name: str, side: int | None, params: int = 1) -> BackboneSpec:
    takes = {"height": side, "width": side, "channels": 3} if side else {}
    return BackboneSpec(name, "image", "hub", name, builder=never, params=params, takes=takes)


def never(spec: BackboneSpec, seed: int | None) -> Any:
    raise AssertionError("built before anything may be computed")


def saved(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def pixels(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, np.uint8)


PLAIN: Facts = {"height": 300, "width": 300, "bits": 8, "grey": 0.0, "moving": 0.0, "transparent": 0.0}


def said(spec: BackboneSpec, facts: list[Facts], *others: BackboneSpec) -> list[tuple[str, str]]:
    return [(w.text, w.remedy) for w in fit.misfits(spec, facts, lambda: others)]


# what is seen


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("rgb.png", pixels(20, 30, 3), {}),
        ("rgb.jpg", pixels(20, 30, 3), {}),
        ("rgb.tif", pixels(20, 30, 3), {}),
        ("grey.png", pixels(20, 30), {"grey": 1.0}),
        ("grey.jpg", pixels(20, 30), {"grey": 1.0}),
        ("clear.png", pixels(20, 30, 4), {"transparent": 1.0}),
        ("opaque.png", np.dstack([pixels(20, 30, 3), np.full((20, 30, 1), 255, np.uint8)]), {}),
        ("deep.png", pixels(20, 30).astype(np.uint16) * 257, {"grey": 1.0, "bits": 16}),
        ("deep.tif", pixels(20, 30).astype(np.uint16) * 257, {"grey": 1.0, "bits": 16}),
    ],
)
def test_size_and_channels_of_the_file(
    tmp_path: Path, name: str, array: np.ndarray, expected: dict[str, float]
) -> None:
    path = saved(tmp_path / name, array)
    assert LOADER.measure(path) == {**PLAIN, "height": 20, "width": 30, **expected}


def test_deep_colour_is_seen_although_pillow_opens_it_with_eight_bits(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    lines = b"".join(b"\0" + bytes(6 * 30) for _ in range(20))
    header = struct.pack(">IIBBBBB", 30, 20, 16, 2, 0, 0, 0)
    path = tmp_path / "deep.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    )
    assert LOADER.check(path) is None
    assert LOADER.measure(path) == {**PLAIN, "height": 20, "width": 30, "bits": 16}


def test_a_palette_may_be_transparent(tmp_path: Path) -> None:
    image = Image.fromarray(pixels(20, 30)).convert("P")
    image.save(tmp_path / "a.gif", transparency=0)
    assert LOADER.measure(tmp_path / "a.gif")["transparent"] in (0.0, 1.0)
    image.save(tmp_path / "b.gif")
    assert LOADER.measure(tmp_path / "b.gif")["transparent"] == 0.0


def test_a_quarter_turn_swaps_the_sides(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "turned.jpg", pixels(20, 30, 3), exif=exif)
    facts = LOADER.measure(path)
    assert (facts["height"], facts["width"]) == LOADER.decode(path).shape[:2] == (30, 20)


def test_animations_are_told_from_previews(tmp_path: Path) -> None:
    frames = [Image.fromarray(pixels(20, 30, 3)) for _ in range(3)]
    for suffix in ("gif", "webp", "png"):
        path = tmp_path / f"moving.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        assert LOADER.measure(path)["moving"] == 1.0, suffix
    frames[0].save(tmp_path / "preview.jpg", "MPO", save_all=True, append_images=frames[1:])
    assert LOADER.measure(tmp_path / "preview.jpg")["moving"] == 0.0


def test_other_files_are_refused_in_the_loader_s_own_words(tmp_path: Path) -> None:
    path = tmp_path / "text.png"
    path.write_text("no image")
    with pytest.raises(DecodeError, match="not an image: a text"):
        LOADER.measure(path)
    with pytest.raises(DecodeError, match="can't be opened"):
        LOADER.measure(tmp_path / "missing.png")


# what is said


def test_ordinary_images_give_no_warning() -> None:
    shapes = [(300, 300), (224, 224), (112, 150), (480, 640), (1200, 1600)]
    assert said(net("net", 224), [{**PLAIN, "height": h, "width": w} for h, w in shapes]) == []


def test_images_far_smaller_than_the_input() -> None:
    facts: list[Facts] = [{**PLAIN, "height": 32, "width": 40}] * 9 + [PLAIN]
    others = [net("tiny", 32, 2), net("small", 64, 5), net("lighter", 64, 3), net("net", 224), net("unknown", None)]
    assert said(net("net", 224), facts, *others) == [
        (
            "half of the images are at most 32 pixels high or wide, enlarged 7.0 times to 224: fine detail is made up",
            "use larger originals where there are any, or choose tiny or lighter",
        )
    ]
    assert said(net("net", 224), facts)[0][1] == "use larger originals where there are any"
    assert said(net("small", 64), facts) == []
    assert said(net("unknown", None), facts) == []


def test_images_far_larger_than_the_input() -> None:
    assert said(net("net", 224), [{**PLAIN, "height": 3000, "width": 4000}]) == [
        (
            "half of the images are at least 3,000 pixels high and wide, shrunk 13 times to 224: what is less than 13 "
            "pixels across is lost",
            "where small things decide the label, cut the images to them or into tiles",
        )
    ]


def test_long_images() -> None:
    facts: list[Facts] = [{**PLAIN, "width": 900}] * 2 + [PLAIN] * 8
    assert said(net("net", 224), facts) == [
        (
            "20% of the images are over 2 times as long as wide; of those a square input shows less than half, or all "
            "of it squeezed",
            "cut them to what matters, or pad them to squares",
        )
    ]
    assert said(net("net", None), facts) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"grey": 1.0}, "30% of the files are grey; the three colour channels that go in will be equal"),
        ({"transparent": 1.0}, "30% of the images are transparent in places; those become white"),
        ({"bits": 16}, "30% of the files have 16 bits a channel; the top 8 are kept"),
        ({"moving": 1.0}, "30% of the files are animated; only their first frame is seen"),
    ],
)
def test_channels_and_frames(change: dict[str, float], text: str) -> None:
    [(found, remedy)] = said(net("net", 224), [{**PLAIN, **change}] * 3 + [PLAIN] * 7)
    assert found == text
    assert remedy
    assert said(net("net", 224), [{**PLAIN, **change}] + [PLAIN] * 19) == []


def test_alpha_that_was_not_looked_at_counts_for_nothing() -> None:
    unknown = {name: value for name, value in PLAIN.items() if name != "transparent"}
    assert said(net("net", 224), [unknown] * 10) == []
    assert said(net("net", 224), [unknown] * 9 + [{**PLAIN, "transparent": 1.0}]) != []


def test_the_catalogue_offers_a_small_input(tmp_path: Path) -> None:
    facts = [LOADER.measure(saved(tmp_path / f"{i}.png", pixels(48, 48, 3))) for i in range(3)]
    [warning] = LOADER.misfits(net("net", 224), facts)
    small = [spec.name for spec in catalogue() if 0 < spec.takes.get("height", 0) <= 96]
    assert all(name in warning.remedy for name in small[:1])


def test_measuring_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.jpg", pixels(20, 30, 3))

    def loaded(self: Image.Image) -> Callable[..., Any]:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", loaded)
    assert LOADER.measure(path)["width"] == 30
