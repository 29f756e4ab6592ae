"""The central types: what a sample is, what a modality brings, and a backbone before it is opened.

Those that are networks stand in tl_core.networks and load on first use: much of tl needs no torch, which takes seconds.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import numpy as np

from tl_core.errors import DecodeError
from tl_core.saliency import Overlay, Saliency

if TYPE_CHECKING:
    from tl_core.networks import Backbone as Backbone
    from tl_core.networks import Head as Head
    from tl_core.networks import State as State

Task = Literal["multiclass", "multilabel", "regression"]
SPLITS = ("train", "val", "test")

Source = Path | str
"""What a loader reads: a file (`Path`), or the sample itself (`str`, inline text of a table row)."""

Facts = Mapping[str, float | str]
"""What a look at one raw sample tells (`{"height": 480, "width": 640}`); a name is absent where it is not known."""

Corrupt = Callable[[Any, int, np.random.Generator], Any]
"""What harms a decoded sample: the sample, a severity from 1 (mild) to 5 (severe), and what chance is drawn from."""

Plain = np.ndarray | Mapping[str, float]
"""What can be said of a sample without a network: float32 [D], or how often each of its terms occurs."""

END = "end"
"""The cut after the last segment: the embedding."""

PRESETS = ("cpu/fast", "cpu/balanced", "cpu/best", "cuda/fast", "cuda/balanced", "cuda/best")
"""Who competes when the user names no backbone, by the device that computes and the patience of the user."""

FORMAT_VERSION = 1
"""Part of every fingerprint: raised when the meaning of a feature row changes for all backbones."""


@dataclass(frozen=True)
class Sample:
    """One row of the manifest.

    id: stable name (path relative to the data root, or `table.csv:17`); digest: md5 hex of the bytes that the
    loader reads; source: absolute path or inline text; label: as written by the user, None where missing;
    group: value of the group column or None; reason: why the row is quarantined, None where it is fine.
    """

    row: int
    id: str
    digest: str
    source: Source
    label: str | None
    split: str
    group: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Targets:
    """What a task's labels look like, as far as a head must know it.

    classes: label names in index order (empty for regression).
    """

    task: Task
    classes: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """Width of the logits: one per class, 1 for regression."""
        return len(self.classes) if self.task != "regression" else 1


@dataclass(frozen=True)
class FitWarning:
    """Something about the data or a backbone that the user should know before anything is computed.

    about: what it concerns, in a word or two (`language`, `image size`); text: what was seen, with numbers; remedy:
    what to do about it. Plain English without a final stop.
    """

    about: str
    text: str
    remedy: str


class Loader(ABC):
    """A modality's door: everything tl knows about the raw samples of one modality.

    `version` is part of every fingerprint: raise it whenever `decode` gives other arrays for the same bytes.
    `measure_version` belongs to `measure` in the same way: what it gave is remembered; and `augment_version` to
    `augment`: states of variants are stored; and `plain_version` to `plain`.

    corruptions: how a decoded sample looks when something has gone wrong with it, by a name for people (`blur`); what
    that costs a model is measured on test rows. Each gives a sample of the form that decode() gives, leaves the one
    that it is given as it is, draws chance from the generator alone, and changes a sample the more the higher the
    severity, which at 1 is hardly noticed and at 5 leaves the label just recognisable.
    """

    modality: ClassVar[str]
    extensions: ClassVar[frozenset[str]]  # lower case, with the dot
    inline: ClassVar[bool] = False  # True where a table column may hold the sample itself
    version: ClassVar[int] = 1
    measure_version: ClassVar[int] = 1
    augment_version: ClassVar[int] = 1
    plain_version: ClassVar[int] = 1
    corruptions: ClassVar[Mapping[str, Corrupt]] = {}

    @final
    def check(self, source: Source) -> str | None:
        """Why the source is unusable (`"empty file"`, `"truncated JPEG: ..."`), or None: decodes it whole."""
        try:
            self.decode(source)
        except DecodeError as error:
            return str(error)
        return None

    @abstractmethod
    def decode(self, source: Source) -> Any:
        """The sample in memory, in the modality's own form. Raises DecodeError, in a few words, where it is unusable.

        Called from several threads at once. Those words land in quarantine.csv.
        """

    def decode_for(self, source: Source, need: Any) -> Any:
        """The sample for a backbone with this `Backbone.need`; may skip what the backbone would throw away.

        What it gives is decided by the source's bytes and `need` alone. Raises DecodeError as decode() does.
        """
        return self.decode(source)

    def augment(self, decoded: Any, rng: np.random.Generator) -> Any:
        """A random variant of a decoded sample that keeps its label; the sample itself where none is known."""
        return decoded

    @property
    def augments(self) -> bool:
        """Whether augment() gives anything but the sample itself."""
        return type(self).augment is not Loader.augment

    def measure(self, source: Source) -> Facts:
        """What misfits() must know of one sample, by a look that is much cheaper than a backbone; by default nothing.

        Finite numbers and short words, decided by the source's bytes alone. Raises DecodeError as decode() does.
        """
        return {}

    def misfits(self, spec: BackboneSpec, facts: Sequence[Facts]) -> list[FitWarning]:
        """Where a backbone and these data don't suit each other; by default nowhere.

        facts: what measure() gave for some training samples, at least one. Goes by the spec's facts alone: opens and
        downloads nothing. What is not known, of the backbone or of the data, gives no warning.
        """
        return []

    def plain(self, decoded: Any) -> Plain | None:
        """What can be said of a decoded sample without a network: a linear model on it is what a backbone must beat.

        Numbers, float32 [D] with the same D for all samples (pixels of a thumbnail, say), or the sample's terms and how
        often each occurs (words of a text), of which tl makes features that it fits to the training rows. None, the
        default, where the modality has none. Decided by the sample alone; numbers are kept in the feature store.
        """
        return None

    def libraries(self) -> Mapping[str, str]:
        """Names and versions of the libraries that decode() and plain() go by: part of the key of plain features."""
        return {}

    @abstractmethod
    def render(self, source: Source) -> str:
        """A self-contained HTML fragment that shows the sample (escaped text, data-URI image or audio)."""

    def overlay(self, source: Source, saliencies: Sequence[Saliency]) -> Overlay | None:
        """The sample with what the model looked at, once for each saliency; None, the default: not supported.

        saliencies: of this source, one or more. The fragment is as render()'s, at most 100 kB, and says in words too
        where the model looked. Raises DecodeError as decode() does.
        """
        return None


@dataclass(frozen=True)
class Prepared:
    """A decoded sample as a backbone takes it: one or more windows without a batch dimension.

    truncated: True where the backbone can't see the whole sample.
    """

    windows: tuple[State, ...]
    truncated: bool = False


@dataclass(frozen=True)
class Identity:
    """Everything that decides a backbone's output, apart from the sample.

    weights: digest of the weights; preprocessing: JSON-able values (sizes, means, pooling, tokenizer digest,
    loader version, ...); revision: hub commit or package version where known (recorded, no part of the key).
    augmentation: JSON-able values that decide which random variant of each sample goes in, None for the sample itself.
    """

    weights: str
    preprocessing: Mapping[str, Any]
    architecture: str
    revision: str | None = None
    augmentation: Mapping[str, Any] | None = None

    @property
    def fingerprint(self) -> str:
        """64 hex digits over weights, architecture, preprocessing, augmentation and tl's format version."""
        facts: list[object] = [FORMAT_VERSION, self.architecture, self.weights, dict(self.preprocessing)]
        if self.augmentation is not None:
            facts.append(dict(self.augmentation))
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def network(self) -> str:
        """The fingerprint of the same without augmentation: what is known of the network alone goes by this."""
        return replace(self, augmentation=None).fingerprint


Builder = Callable[["BackboneSpec", int | None], "Backbone"]


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone by name, before anything is opened.

    source: `hub` (location is `owner/name`), `folder`, `file` or `package` (location is the import name, or a
    path inside it). Unknown facts are None, never invented. sha256: expected digest of the weights, verified on
    load where given. params: those of the encoder, without a classifier. flops: 2 x multiply-adds of one sample: an
    image at the input size, a text of 128 tokens, 10 s of sound. input: what it takes in, in words, for people. takes:
    the same as facts: of an image `{"height": 224, "width": 224, "channels": 3}`; of text `{"tokens": 512,
    "languages": ["en"]}`, where `"many"` and `"code"` are languages too; of sound `{"rate": 16000, "seconds": 10.0,
    "sounds": "speech"}`, with `"general"` for any sound, seconds None where any length goes in whole, and `"filled":
    True` where shorter clips cost as much as that. presets: the PRESETS that it competes in when the user names no
    backbone. options: small JSON-able build settings (`{"layers": 3}`). offline: whether the weights are on this
    machine, for weights that a library keeps in a place of its own; where they lie in the hub's cache, a package, a
    folder or a file, tl finds out by itself. view, base: of a part of a backbone (`NAME#layer3`), where it was cut,
    and the spec that it is a part of.
    """

    name: str
    modality: str
    source: Literal["hub", "folder", "file", "package"]
    location: str
    builder: Builder = field(repr=False, compare=False)
    revision: str | None = None
    sha256: str | None = None
    params: int | None = None
    flops: int | None = None
    feature_dim: int | None = None
    licence: str | None = None
    pretrained_on: str | None = None
    input: str | None = None
    takes: Mapping[str, Any] = field(default_factory=dict)
    presets: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    offline: Callable[[BackboneSpec], bool] | None = field(default=None, repr=False, compare=False)
    view: str | None = None
    base: BackboneSpec | None = field(default=None, repr=False, compare=False)

    def build(self, random_seed: int | None = None) -> Backbone:
        """Read the weights (or, with a seed, draw random ones for the same network) and return it in eval mode.

        Raises UserError where weights are missing, unreadable or of another architecture.
        """
        backbone = self.builder(self, random_seed)
        backbone.requires_grad_(False)
        return backbone.eval()


@dataclass(frozen=True)
class HeadSpec:
    """A head by modality, task and name.

    metrics: names as in metrics.json; watch: the one that choices are made by; higher_is_better: its direction.
    """

    name: str
    modality: str
    task: Task
    build: Callable[[int, Targets], Head] = field(repr=False, compare=False)
    metrics: tuple[str, ...] = ()
    watch: str = ""
    higher_is_better: bool = True


def __getattr__(name: str) -> Any:
    if name not in ("Backbone", "Head", "State"):
        raise AttributeError(f"module 'tl_core.types' has no attribute {name!r}")
    return getattr(importlib.import_module("tl_core.networks"), name)
