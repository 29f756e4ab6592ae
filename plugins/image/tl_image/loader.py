"""Image files to RGB arrays, and the reasons why some are refused."""

from __future__ import annotations

import base64
import html
import io
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from tl_core import BackboneSpec, DecodeError, Facts, FitWarning, Loader, Overlay, Saliency, Source
from tl_image import fit, jpeg
from tl_image.corruptions import CORRUPTIONS

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 2**27
"""Larger images are refused: 134 million pixels are 400 MB as RGB, and more than any camera in wide use makes."""

MIN_SIDE = 2
"""Smaller images are refused: one-pixel files are counters and placeholders, not pictures."""

FORMATS = {
    "JPEG": ("JPEG", "MPO"),
    "PNG": ("PNG",),
    "WebP": ("WEBP",),
    "BMP": ("BMP",),
    "TIFF": ("TIFF",),
    "GIF": ("GIF",),
}

_OURS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_OTHERS = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"OggS", "an Ogg sound"),
    (b"fLaC", "a FLAC sound"),
    (b"ID3", "an MP3 sound"),
    (b"8BPS", "a Photoshop document"),
    (b"\x00\x00\x01\x00", "an icon"),
)
_BRANDS = {b"heic": "a HEIC photo", b"heix": "a HEIC photo", b"mif1": "a HEIC photo", b"avif": "an AVIF image"}

_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""What makes a picture upright, by its EXIF orientation."""

_SIDEWAYS = (5, 6, 7, 8)


class ImageLoader(Loader):
    """JPEG, PNG, WebP, BMP, TIFF and GIF by content, as uint8 RGB [H, W, 3].

    Animations and multi-page files give their first frame. EXIF orientation is applied; transparency is laid over
    white; 16-bit samples keep their high byte (65535 becomes 255); float samples must lie in 0..1. CMYK is
    converted without its colour profile, JPEG ones read inverted as Adobe writes them.
    """

    modality = "image"
    extensions = frozenset(
        {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
    )  # fmt: skip
    version = 1
    corruptions = CORRUPTIONS

    def decode(self, source: Source) -> np.ndarray:
        """The picture upright, uint8 [H, W, 3], writable. Raises DecodeError with the reason."""
        return _decoded(Path(source), None)

    def decode_for(self, source: Source, need: tuple[int, int] | None) -> np.ndarray:
        """As decode(), but a JPEG that is much larger than needed comes at a half, a quarter or an eighth of its size.

        need: height and width that the upright picture will be resized to at least; None for every pixel.
        """
        return _decoded(Path(source), need)

    def augment(self, decoded: Any, rng: np.random.Generator) -> np.ndarray:
        """A random crop (60-100% of the area), a left-right flip and mild brightness, contrast and saturation.

        Not resized: the backbone's own preprocessing does that. uint8 [H, W, 3] to uint8 [H', W', 3].
        """
        image = _random_crop(decoded, rng)
        if rng.random() < 0.5:
            image = image[:, ::-1]
        brightness, contrast, saturation = rng.uniform(0.8, 1.2, size=3).astype(np.float32)
        pixels = image.astype(np.float32) * brightness
        grey = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)  # [H, W]
        pixels = (pixels - grey[..., None]) * saturation + grey[..., None]
        pixels = (pixels - grey.mean()) * contrast + grey.mean()
        return np.ascontiguousarray(np.rint(pixels).clip(0, 255).astype(np.uint8))

    def measure(self, source: Source) -> Facts:
        """Size, shape and channels of the file."""
        from PIL import Image

        path = Path(source)
        with _opened(path) as stream:
            head = stream.read(64)
            kind = _kind(head)
            with _explained(kind, path), _quiet_pillow(), Image.open(stream, formats=FORMATS[kind]) as image:
                return fit.measure(image, head, _orientation(image) in _SIDEWAYS)

    def misfits(self, spec: BackboneSpec, facts: Sequence[Facts]) -> list[FitWarning]:
        """Images far smaller or larger than the input, long ones, and files that hold more or less than 8-bit RGB."""
        from tl_image.catalogue import catalogue

        return fit.misfits(spec, facts, catalogue)

    def plain(self, decoded: Any) -> np.ndarray:
        """A thumbnail's pixels, a histogram of colours and one of gradients, float32 [1408]."""
        from tl_image.plain import plain

        return plain(decoded)

    def libraries(self) -> Mapping[str, str]:
        import PIL

        return {"pillow": PIL.__version__}

    def render(self, source: Source) -> str:
        """An `<img>` with a JPEG thumbnail of at most 256 pixels as a data URI."""
        from PIL import Image

        thumbnail = Image.fromarray(self.decode(source))
        thumbnail.thumbnail((256, 256))
        buffer = io.BytesIO()
        thumbnail.save(buffer, "JPEG", quality=85)
        data = base64.b64encode(buffer.getvalue()).decode()
        width, height = thumbnail.size
        name = html.escape(Path(source).name, quote=True)
        return f'<img src="data:image/jpeg;base64,{data}" alt="{name}" width="{width}" height="{height}">'

    def overlay(self, source: Source, saliencies: Sequence[Saliency]) -> Overlay:
        """The picture, and beside it once for each saliency what spoke for its class, in colours over its greys."""
        from tl_image.overlay import overlay

        return overlay(self.decode(source), Path(source).name, saliencies)


def _decoded(path: Path, need: tuple[int, int] | None) -> np.ndarray:
    with _opened(path) as stream:
        return _read(stream, _kind(stream.read(64)), path, need)


def _read(stream: BinaryIO, kind: str, path: Path, need: tuple[int, int] | None) -> np.ndarray:
    from PIL import Image

    with _explained(kind, path), _quiet_pillow(), Image.open(stream, formats=FORMATS[kind]) as image:
        _refuse_size(*image.size)
        if need is not None and kind == "JPEG":
            jpeg.shrink(image, need[::-1] if _orientation(image) in _SIDEWAYS else need)
        image.load()
        return _rgb(_upright(image))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file, its troubles as DecodeError."""
    try:
        with path.open("rb") as stream:
            yield stream
    except OSError as error:
        raise DecodeError(f"can't be opened: {error.strerror or error}") from error


@contextmanager
def _explained(kind: str, path: Path) -> Iterator[None]:
    """Whatever Pillow raises at a damaged file as DecodeError with the reason."""
    from PIL import Image

    try:
        yield
    except (DecodeError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise DecodeError(f"too large: over {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        raise DecodeError(_reason(kind, path, error)) from error


def _kind(head: bytes) -> str:
    """The image format by a file's first bytes. Raises DecodeError where it is none of ours."""
    if not head:
        raise DecodeError("empty file")
    for magic, kind in _OURS:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    raise DecodeError(f"not an image: {_other_kind(head)}; read are {', '.join(FORMATS)}")


def _other_kind(head: bytes) -> str:
    for magic, what in _OTHERS:
        if head.startswith(magic):
            return what
    if head[:4] == b"RIFF":
        return "a WAV sound" if head[8:12] == b"WAVE" else "a RIFF file of another kind"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "a video or sound (MP4)")
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if b"<svg" in text or text.startswith(b"<?xml"):
        return "an XML or SVG text"
    if not any(byte < 9 or 13 < byte < 32 for byte in head):
        return "a text"
    return "unknown content"


def _refuse_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise DecodeError(f"too large: {width}x{height} is over {MAX_PIXELS:,} pixels")
    if min(width, height) < MIN_SIDE:
        raise DecodeError(f"too small: {width}x{height}, at least {MIN_SIDE} pixels a side")


def _reason(kind: str, path: Path, error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"unreadable {kind}: damaged or truncated header"  # Pillow's own text names a Python object
    lines = str(error).strip().splitlines()
    text = lines[0][:120] if lines else type(error).__name__
    if kind == "WebP" and _shorter_than_stated(path):
        return "truncated WebP: the file ends before its stated length"
    word = "truncated" if "truncated" in text.lower() else "unreadable"
    return f"{word} {kind}: {text.removeprefix('image file is truncated').strip(' ()') or 'the data end early'}"


def _shorter_than_stated(path: Path) -> bool:
    with path.open("rb") as stream:
        head = stream.read(8)
    return path.stat().st_size < int.from_bytes(head[4:8], "little") + 8


def _orientation(image: Image) -> int | None:
    """The EXIF orientation; an unreadable EXIF block counts as none."""
    try:
        return image.getexif().get(0x0112)
    except Exception:  # as many kinds of exception as there are ways to damage EXIF
        return None


def _upright(image: Image) -> Image:
    from PIL.Image import Transpose

    turn = _TURNS.get(_orientation(image))  # type: ignore[arg-type]  # any other value is no turn
    return image if turn is None else image.transpose(Transpose[turn])


def _rgb(image: Image) -> np.ndarray:
    """uint8 [H, W, 3] of an image in any of Pillow's modes."""
    from PIL import Image as Pillow

    if image.mode == "F" or image.mode.startswith("I"):
        return np.repeat(_eight_bits(np.asarray(image))[..., None], 3, axis=2)  # [H, W] -> [H, W, 3]
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Pillow.alpha_composite(Pillow.new("RGBA", rgba.size, "white"), rgba)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _eight_bits(grey: np.ndarray) -> np.ndarray:
    """uint8 of wide greyscale samples: the high byte of 16-bit ones, 255 times a float in 0..1."""
    if np.issubdtype(grey.dtype, np.floating):
        if not (np.isfinite(grey).all() and grey.min() >= 0 and grey.max() <= 1):
            raise DecodeError("floating-point pixels outside 0..1: convert the file to 8 or 16 bits")
        return np.asarray(np.rint(grey * 255), dtype=np.uint8)
    if grey.min() < 0 or grey.max() > 65535:
        raise DecodeError("32-bit pixels outside 0..65535: convert the file to 8 or 16 bits")
    return np.asarray(grey.astype(np.uint16) >> 8, dtype=np.uint8)


def _random_crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random box of 60-100% of the area, its aspect within 3/4..4/3 of the image's own."""
    height, width = image.shape[:2]
    area, aspect = rng.uniform(0.6, 1.0), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    h = max(1, min(height, round(height * np.sqrt(area / aspect))))
    w = max(1, min(width, round(width * np.sqrt(area * aspect))))
    top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    return image[top : top + h, left : left + w]


_lock = threading.Lock()
_inside = 0
_catcher: warnings.catch_warnings[None] | None = None


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Ignore Pillow's warnings (large images, odd metadata): whether a file is usable is decided here.

    `warnings.catch_warnings` restores the filters of the whole process, so threads that overlap share one: the
    first in sets it, the last out restores it.
    """
    global _inside, _catcher
    with _lock:
        if _inside == 0:
            _catcher = warnings.catch_warnings()
            _catcher.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _catcher is not None:
                _catcher.__exit__(None, None, None)
                _catcher = None
