"""Converted models beside the feature store: made once, checked whenever they are read, never needed.

`engines/<fingerprint>-<cut>-<version>/` holds model.xml, model.bin and meta.json. A folder appears whole (written
aside, then renamed); one that is damaged is deleted; where the disk takes no files nothing is kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tl_core.engines.conversion import Signature, import_openvino
from tl_core.engines.engine import libraries
from tl_core.types import END, Backbone

T = TypeVar("T")

FOLDER = "engines"
FORMAT_VERSION = 1

_META, _MODEL, _WEIGHTS = "meta.json", "model.xml", "model.bin"
_ASIDE = ".aside-"
_DAY = 86400.0


@dataclass(frozen=True)
class Meta:
    """What is known of a converted span.

    libraries: that the network's code came from, with versions: after an upgrade it is converted anew.
    signature: None where there is no model; proven: by precision class, the CPUs that it gave torch's values on;
    refused: by precision class, why it is not used; sha256: of the model's files.
    """

    fingerprint: str
    cut: str
    version: str
    libraries: Mapping[str, str]
    signature: Signature | None = None
    proven: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)


class KeptModel:
    """The place of one converted span; nowhere where `store` is None."""

    def __init__(self, store: Path | None, backbone: Backbone, stop: int, version: str) -> None:
        cut = [*backbone.segment_names, END][stop]
        network = backbone.identity.network
        self.blank = Meta(network, cut, version, libraries(backbone))
        parts = (network[:16], cut[:40], version.partition("-")[0])
        name = "-".join(re.sub(r"[^A-Za-z0-9_.]", "_", part) for part in parts)
        self._path = None if store is None else store / FOLDER / name

    def meta(self) -> Meta | None:
        """What is known, without a look at the model itself; None where nothing (of this format) is kept."""
        if self._path is None:
            return None
        try:
            found = _meta(json.loads((self._path / _META).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return found if _origin(found) == _origin(self.blank) else None

    def load(self, meta: Meta, read: Callable[[Path], Any]) -> Any | None:
        """The kept model as `read` gives it; None where there is none. Deletes one that is not what it was."""
        if self._path is None or meta.signature is None or not meta.sha256:
            return None
        try:
            if meta.sha256 == _digests(self._path):
                return read(self._path / _MODEL)
        except (OSError, RuntimeError):  # OpenVINO tells of unreadable files by RuntimeErrors
            pass
        self._remove()
        return None

    def keep(self, meta: Meta, model: Any) -> Meta:
        """Keep a model where the disk takes it; what is then known of it.

        Where another process has kept one meanwhile that stays, so that both go on with the same.
        """
        there = self._intact(meta)
        if there is not None:
            return there
        self._remove()

        def save(folder: Path) -> Meta:
            import_openvino().save_model(model, folder / _MODEL, compress_to_fp16=False)
            kept = dataclasses.replace(meta, sha256=_digests(folder))
            _write(folder, kept)
            folder.rename(self._place)
            return kept

        return self._aside(save) or self._intact(meta) or meta

    def _intact(self, meta: Meta) -> Meta | None:
        """What is known of a whole model that lies here and takes and gives the same; None without one."""
        found = self.meta()
        if self._path is None or found is None or not found.sha256 or found.signature != meta.signature:
            return None
        try:
            return found if found.sha256 == _digests(self._path) else None
        except OSError:
            return None

    def amend(self, meta: Meta) -> None:
        """Change what is known, of a kept model or of why there is none."""

        def write(folder: Path) -> None:
            self._place.mkdir(exist_ok=True)
            _write(folder, meta).replace(self._place / _META)

        self._aside(write)

    def _remove(self) -> None:
        """Delete what is kept here; first out of the way, so that nobody reads half of it."""
        if self._path is not None and self._path.is_dir():
            self._aside(lambda folder: self._place.rename(folder / "old"))

    def _aside(self, work: Callable[[Path], T]) -> T | None:
        """Do something with a folder that is gone afterwards; None where there is no place or the disk fails."""
        if self._path is None:
            return None
        folder: Path | None = None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(self._path.parent)
            folder = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=self._path.parent))
            folder.chmod(0o755)  # mkdtemp's are for their owner alone; a store may be a team's
            return work(folder)
        except (OSError, RuntimeError):
            return None
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def _place(self) -> Path:
        assert self._path is not None
        return self._path


def _origin(meta: Meta) -> tuple[object, ...]:
    return meta.fingerprint, meta.cut, meta.version, dict(meta.libraries)


def _write(folder: Path, meta: Meta) -> Path:
    path = folder / _META
    path.write_text(json.dumps({"format": FORMAT_VERSION, **dataclasses.asdict(meta)}, indent=1), encoding="utf-8")
    return path


def _meta(values: dict[str, Any]) -> Meta:
    if values.pop("format") != FORMAT_VERSION:
        raise ValueError
    signature = values.pop("signature")
    if signature is not None:
        inputs = {key: (str(dtype), tuple(shape)) for key, (dtype, shape) in signature["inputs"].items()}
        signature = Signature(inputs, tuple(signature["outputs"]), tuple(signature["passed"]))
    proven = {key: tuple(cpus) for key, cpus in values.pop("proven").items()}
    return Meta(signature=signature, proven=proven, **values)


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for name in (_MODEL, _WEIGHTS):
        with (folder / name).open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _sweep(folder: Path) -> None:
    """Delete what killed processes have left, a day after."""
    for path in folder.glob(f"{_ASIDE}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _DAY:
                shutil.rmtree(path, ignore_errors=True)
