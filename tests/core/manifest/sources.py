"""Loaders and data sets that the manifest's tests share."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tl_core.config import load_config
from tl_core.errors import DecodeError
from tl_core.manifest import Manifest, scan
from tl_core.types import Loader, Source


class Pixels(Loader):
    """Reads .pix files: `ok` and anything; counts its checks."""

    modality = "pixels"
    extensions = frozenset({".pix"})

    def __init__(self) -> None:
        self.checked: list[str] = []

    def decode(self, source: Source) -> Any:
        assert isinstance(source, Path)
        self.checked.append(source.name)
        content = source.read_bytes()
        if content.startswith(b"boom"):
            raise RuntimeError("decoder\nexploded")
        if not content.startswith(b"ok"):
            raise DecodeError("truncated")
        return content

    def render(self, source: Source) -> str:
        return ""


class Waves(Pixels):
    modality = "waves"
    extensions = frozenset({".wav"})


class Words(Pixels):
    modality = "words"
    extensions = frozenset()
    inline = True

    def decode(self, source: Source) -> Any:
        if source == "123":
            raise DecodeError("no letters")
        return source


LOADERS = [Pixels(), Waves(), Words()]


def read(path: Path, *settings: str, loaders: Sequence[Loader] = LOADERS, **options: Any) -> Manifest:
    return scan(path, load_config(None, settings), loaders, progress=False, **options)


def fill(root: Path, files: Iterable[str], content: str = "ok") -> Path:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content} {name}", encoding="utf-8")
    return root


def classes(prefix: str = "", n: int = 5, names: Sequence[str] = ("cat", "dog")) -> list[str]:
    return [f"{prefix}{name}/{i}.pix" for name in names for i in range(n)]


def table(path: Path, rows: Sequence[Sequence[object]], header: Sequence[str] = ("text", "label")) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([header, *rows])
    return path


def texts(n: int = 12, labels: Sequence[str] = ("yes", "no")) -> list[tuple[str, str]]:
    return [(f"sentence number {i}", labels[i % len(labels)]) for i in range(n)]


def reasons(manifest: Manifest) -> dict[str, str]:
    return {row["id"]: row["reason"] for row in manifest.quarantined()}


def sizes(manifest: Manifest) -> dict[str, int]:
    return {split: len(manifest.rows(split)) for split in ("train", "val", "test")}
