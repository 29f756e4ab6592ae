"""What is measured on: photos, texts and clips made from the real sets, or made up where those are missing.

Everything is made once into the cache, the same for the same numbers, and as many distinct samples as asked for.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.features.plugins import registry_here
from benchmarks.features.setting import Setup, say
from tl_core.config import validate
from tl_core.manifest import Manifest, scan
from tl_core.workspace import write_text

if TYPE_CHECKING:
    from PIL.Image import Image

PHOTO = (500, 375)  # pixels, width and height
PHOTO_QUALITY = 90
TOKENS_MEAN, TOKENS_SIGMA = 68.0, 0.7  # of a lognormal spread; sigma of its logarithm
TOKENS_RANGE = (4, 256)
TOKENS_PER_WORD = 1.13  # MiniLM, on the real sets
CLIP_SECONDS = (1.0, 10.0)
RATE = 16_000


def photos(setup: Setup, count: int, size: tuple[int, int] = PHOTO) -> Path:
    """A folder `a/`, `b/` of distinct JPEG files of one size.

    Real photos are cropped to the aspect, resized and saved again; further files repeat them with a comment of their
    own in the JPEG, so that every digest is new and none decodes faster.
    """

    def make(folder: Path) -> None:
        from PIL import Image as Pillow
        from PIL import ImageOps

        found = _real(setup, ("hymenoptera", "caltech20"), (".jpg", ".jpeg"))
        pictures: Iterator[Image] = (Pillow.open(path).convert("RGB") for path in found)
        kept: list[bytes] = []
        for picture in pictures if found else _noise_pictures():
            buffer = io.BytesIO()
            ImageOps.fit(picture, size).save(buffer, "JPEG", quality=PHOTO_QUALITY)
            kept.append(buffer.getvalue())
            if len(kept) >= min(count, 400):
                break
        for i in range(count):
            comment = f"copy {i:08d}".encode()
            segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
            data = kept[i % len(kept)]
            path = folder / "ab"[i % 2] / f"{i:06d}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data[:2] + segment + data[2:])

    return _made(setup, f"photos-{size[0]}x{size[1]}-{count}", make)


def texts(setup: Setup, count: int, mean: float = TOKENS_MEAN) -> Path:
    """A CSV of distinct texts with labels, their lengths lognormal as those of mixed real texts are.

    A text is sentences of one class of one set, one after the other, cut at its length in words.
    """

    def make(folder: Path) -> None:
        rng = np.random.default_rng(0)
        by_class = _sentences(setup)
        labels = sorted(by_class)
        mu = np.log(mean) - TOKENS_SIGMA**2 / 2
        tokens = np.clip(rng.lognormal(mu, TOKENS_SIGMA, size=count), *TOKENS_RANGE)
        seen: set[str] = set()
        with (folder / "texts.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["text", "label"])
            for i, length in enumerate(tokens):
                label, words = labels[i % len(labels)], max(2, round((length - 2) / TOKENS_PER_WORD))
                text = _joined(by_class[label], words, rng)
                while text in seen:  # short ones meet
                    text = f"{_joined(by_class[label], words, rng)} {rng.integers(1_000_000)}"
                seen.add(text)
                writer.writerow([text, label])

    return _made(setup, f"texts-{count}-{mean:g}", make) / "texts.csv"


def clips(setup: Setup, count: int) -> Path:
    """A folder `a/`, `b/` of 16 kHz sounds of 1 to 10 s, WAV and FLAC in turn, cut from the real sets end to end."""

    def make(folder: Path) -> None:
        import soundfile

        rng = np.random.default_rng(0)
        seconds = np.linspace(*CLIP_SECONDS, count)
        rng.shuffle(seconds)
        lengths = (seconds * RATE).astype(int)
        stream = _sound(setup, int(lengths.sum()))
        ends = np.cumsum(lengths)
        for i, (end, length) in enumerate(zip(ends, lengths)):
            path = folder / "ab"[i % 2] / f"{i:04d}.{('wav', 'flac')[i // 2 % 2]}"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, stream[end - length : end], RATE)

    return _made(setup, f"clips-{count}", make)


def manifest_of(data: Path, setup: Setup) -> Path:
    """The manifest of a folder or table of this module, scanned once; the file lies beside the data."""
    path = data.parent / f"{data.name}.manifest.parquet"
    if not path.is_file():
        say(f"  scanning {data.name}")
        manifest = scan(data, validate({}), registry_here().loaders(), base=path.parent, progress=False)
        manifest.save(path)
    return path


def load(path: Path) -> tuple[Manifest, np.ndarray]:
    """A manifest of this module and its usable rows, in an order that mixes the splits and classes."""
    manifest = Manifest.load(path, path.parent)
    rows = manifest.rows()
    return manifest, rows[np.random.default_rng(0).permutation(len(rows))]


def _made(setup: Setup, name: str, make: Callable[[Path], None]) -> Path:
    """The folder of this name, made whole or not at all."""
    folder = setup.cache / "material" / name
    if not folder.is_dir():
        say(f"  making {name}")
        half = folder.with_name(f"{name}.part")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        make(half)
        half.rename(folder)
    return folder


def _real(setup: Setup, sets: tuple[str, ...], suffixes: tuple[str, ...]) -> list[Path]:
    folders = (setup.data / "datasets" / name for name in sets)
    found = [p for folder in folders for p in sorted(folder.rglob("*")) if p.suffix.lower() in suffixes]
    order = np.random.default_rng(0).permutation(len(found))
    return [found[i] for i in order]


def _noise_pictures() -> Iterator[Image]:
    """Endless pictures with structure at every scale, as photos have, and some grain."""
    from PIL import Image as Pillow

    rng = np.random.default_rng(0)
    width, height = PHOTO
    while True:
        layers = []
        for step in range(2, 8):
            coarse = rng.normal(128, 2.0 ** (8 - step) * 6, (2**step, 2**step, 3)).clip(0, 255).astype(np.uint8)
            layers.append(np.asarray(Pillow.fromarray(coarse).resize((width, height), Pillow.Resampling.BICUBIC)))
        grainy = np.mean(layers, axis=0) + rng.normal(0, 4, (height, width, 3))
        yield Pillow.fromarray(grainy.clip(0, 255).astype(np.uint8))


def _sentences(setup: Setup) -> dict[str, list[list[str]]]:
    """Sentences as words, by set and class."""
    found: dict[str, list[list[str]]] = {}
    for name in ("trec6", "sst2_mini", "sentiment_domains"):
        path = setup.data / "datasets" / name / "train.csv"
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as stream:
                for row in csv.DictReader(stream):
                    found.setdefault(f"{name} {row['label']}", []).append(row["text"].split())
    if found:
        return found
    rng = np.random.default_rng(0)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "ing")]
    for kind in range(8):
        vocabulary = ["".join(rng.choice(syllables, rng.integers(1, 4))) for _ in range(400)]
        found[f"topic {kind}"] = [list(rng.choice(vocabulary, rng.integers(5, 25))) for _ in range(500)]
    return found


def _joined(sentences: list[list[str]], words: int, rng: np.random.Generator) -> str:
    taken: list[str] = []
    while len(taken) < words:
        taken += sentences[rng.integers(len(sentences))]
    return " ".join(taken[:words])


def _sound(setup: Setup, samples: int) -> np.ndarray:
    """float32 [samples] of real sounds at 16 kHz, one after the other; coloured noise where there are none."""
    found = _real(setup, ("esc10", "fsdd", "ljspeech_mini"), (".ogg", ".wav", ".flac"))
    if not found:
        noise = np.random.default_rng(0).normal(0, 1, samples + 63).astype(np.float32)
        smooth = np.convolve(noise, np.hanning(64) / 32, mode="valid")
        loud: np.ndarray = (smooth / np.abs(smooth).max() * 0.5).astype(np.float32)
        return loud
    import soundfile
    import soxr

    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < samples:
        sound, rate = soundfile.read(found[len(parts) % len(found)], dtype="float32", always_2d=True)
        mono = sound.mean(axis=1)
        parts.append(mono if rate == RATE else soxr.resample(mono, rate, RATE))
    joined: np.ndarray = np.concatenate(parts)[:samples]
    return joined


def write_table(path: Path, rows: list[tuple[str, str]]) -> None:
    """A CSV of (text, label)."""
    buffer = io.StringIO()
    csv.writer(buffer).writerows([("text", "label"), *rows])
    write_text(path, buffer.getvalue())


def read_table(path: Path) -> list[tuple[str, str]]:
    """(text, label) of each row of a CSV of this module."""
    with path.open(encoding="utf-8", newline="") as stream:
        return [(row["text"], row["label"]) for row in csv.DictReader(stream)]
