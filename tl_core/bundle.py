"""A trained model as a folder: head, changed weights, label names and the backbone it stands on. No pickle."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from tl_core.errors import DecodeError, FormatError, UserError
from tl_core.extraction import embed, resolve_device
from tl_core.extraction.rows import DTYPES
from tl_core.pins import at_commit
from tl_core.reference import Reference
from tl_core.registry import Registry
from tl_core.training.seen import Seen
from tl_core.types import Backbone, BackboneSpec, Head, HeadSpec, Identity, Loader, Prepared, Source, Targets, Task
from tl_core.views import AllViews, at_view
from tl_core.weights import read_json
from tl_core.workspace import write_bytes, write_json, write_text

FORMAT_VERSION = 2  # 1 had no reference
REFERENCE = "reference.safetensors"
SEEN = "seen.safetensors"  # of a tuned backbone alone: without one, no training can go on from it
FACTS: dict[str, type] = {  # what no bundle is without
    "modality": str, "task": str, "classes": list, "head": str, "precision": str, "backbone": dict,
    "trained_segments": list, "training": dict,
}  # fmt: skip
CHUNK = 256  # samples decoded at a time while predicting


@dataclass(frozen=True)
class Prediction:
    """What the model says of one source; `error` instead where the source can't be used.

    label: class name, multi-label names joined by "|", or None (regression). probability: of `label` (multiclass)
    or the least sure of the predicted labels. probabilities: per class. value: the number (regression). unusual: how
    unlike the training rows it is, above 1 more than the bundle's threshold; None where the bundle has no reference.
    """

    id: str
    label: str | None = None
    probability: float | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    value: float | None = None
    unusual: float | None = None
    error: str | None = None


@dataclass
class ModelBundle:
    """A model that predicts from raw sources.

    notes: what differs from where it was trained, in sentences; reference: what it keeps of its training rows, in the
    space of its own backbone as it was tuned; None in a bundle of format 1.
    """

    loader: Loader
    backbone: Backbone
    head: Head
    targets: Targets
    facts: dict[str, Any]
    device: torch.device
    notes: tuple[str, ...] = ()
    reference: Reference | None = None

    @classmethod
    def load(cls, folder: Path, registry: Registry, backbone: str | None = None, device: str = "auto") -> ModelBundle:
        """Open a bundle; `backbone` names the backbone's weights where they are not where they were in training.

        Where the bundle stands on a view, that view of them is taken. Raises UserError where the folder is no bundle,
        FormatError on a newer format, and UserError where the backbone's weights are not those that the head was
        trained on.
        """
        facts = read_facts(folder)
        wanted = facts["backbone"]
        try:
            spec = registry.backbone(backbone or wanted["request"], facts["modality"])
            if (spec.source, spec.location) == (wanted["source"], wanted["location"]):
                spec = at_commit(spec, wanted["revision"])
            built = _at_view_of(wanted, spec, folder).build()
        except UserError as error:
            if backbone is not None:
                raise
            raise UserError(
                f"{error}\nthe model in {folder} stands on {wanted['name']}; say where its weights are: "
                "--backbone FOLDER"
            ) from error
        if built.identity.weights != wanted["weights"]:
            raise UserError(
                f"{folder} was trained on {wanted['name']} with weights {wanted['weights'][:12]}, but "
                f"{backbone or wanted['request']} holds {built.identity.weights[:12]}; give the right ones: "
                "--backbone FOLDER"
            )
        notes = [
            f"preprocessing '{key}' was {then!r} in training and is {now!r} here: results may differ"
            for key, then, now in _differences(wanted["preprocessing"], built.identity.preprocessing)
        ]
        if facts["trained_segments"]:
            _load_trained(built, folder / "backbone.safetensors", facts["trained_segments"])
            built.identity = _tuned(built.identity, folder / "backbone.safetensors")
        targets = Targets(cast(Task, facts["task"]), tuple(facts["classes"]))
        head = registry.head(facts["modality"], targets.task, facts["head"]).build(built.feature_dim, targets)
        _load_head(head, folder / "head.safetensors")
        where = resolve_device(device)
        return cls(
            registry.loader(facts["modality"]),
            built.to(where).eval(),
            head.eval(),
            targets,
            facts,
            where,
            tuple(notes),
            Reference.load(folder / REFERENCE) if facts.get("reference") else None,
        )

    def predict(self, sources: Sequence[Source], ids: Sequence[str] | None = None) -> list[Prediction]:
        """One prediction per source, in order; a source that can't be used gets its error."""
        names = [str(source) for source in sources] if ids is None else list(ids)
        out: list[Prediction] = []
        for start in range(0, len(sources), CHUNK):
            out += self._predict_chunk(sources[start : start + CHUNK], names[start : start + CHUNK])
        return out

    def _predict_chunk(self, sources: Sequence[Source], names: Sequence[str]) -> list[Prediction]:
        prepared: dict[int, Prepared] = {}
        errors: dict[int, str] = {}
        for i, source in enumerate(sources):
            try:
                prepared[i] = self._prepared(source)
            except (DecodeError, OSError) as error:
                errors[i] = str(error)
        made: Iterator[tuple[np.ndarray, float | None]] = iter(())
        if prepared:
            features = embed(self.backbone, list(prepared.values()), self.device, self.facts["precision"])
            with torch.inference_mode():
                rows = self.head.decode(self.head(features)).numpy()
            made = zip(rows, self._unusual(features.numpy()), strict=True)
        return [
            Prediction(name, error=errors[i]) if i in errors else self._prediction(name, *next(made))
            for i, name in enumerate(names)
        ]

    def _unusual(self, features: np.ndarray) -> list[float | None]:
        if self.reference is None:
            return [None] * len(features)
        return [float(score) for score in self.reference.scores(features)]

    def _prepared(self, source: Source) -> Prepared:
        """A source as the backbone takes it, read as extraction reads it. Raises DecodeError where it is unusable."""
        if isinstance(source, Path) and not source.is_file():
            raise DecodeError("no such file")
        whole = self.loader.decode(source)  # as it was checked in training, where only a part of it is needed too
        need = self.backbone.need
        return self.backbone.prepare(whole if need is None else self.loader.decode_for(source, need))

    def _prediction(self, name: str, row: np.ndarray, unusual: float | None) -> Prediction:
        if not np.isfinite(row).all():
            return Prediction(name, error="the model gives no finite number for it")
        if self.targets.task == "regression":
            return Prediction(name, value=float(row), unusual=unusual)
        probabilities = {label: float(p) for label, p in zip(self.targets.classes, row, strict=True)}
        if self.targets.task == "multiclass":
            label = max(probabilities, key=lambda key: probabilities[key])
            return Prediction(name, label, probabilities[label], probabilities, unusual=unusual)
        chosen = {label: p for label, p in probabilities.items() if p > 0.5}
        return Prediction(name, "|".join(chosen), min(chosen.values(), default=None), probabilities, unusual=unusual)


def save_bundle(
    folder: Path,
    *,
    spec: BackboneSpec,
    request: str,
    backbone: Backbone,
    trained: Sequence[str],
    head: Head,
    head_spec: HeadSpec,
    targets: Targets,
    precision: str,
    training: Mapping[str, Any],
    reference: Reference | None = None,
    seen: Seen | None = None,
) -> None:
    """Write a bundle. trained: names of the segments whose weights changed; only those are stored.

    training: JSON-able facts for the model card (data version, rows, strategy, validation metrics); reference: made of
    embeddings by this very backbone, without which predictions don't say how unusual a source is; seen: the rows
    that the trained segments have seen.
    """
    facts = {
        "format": FORMAT_VERSION,
        "modality": spec.modality,
        "task": targets.task,
        "classes": list(targets.classes),
        "head": head_spec.name,
        "precision": precision,
        "backbone": backbone_facts(spec, request, backbone),
        "trained_segments": list(trained),
        "training": dict(training),
        "reference": None if reference is None else reference.facts(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "head.safetensors", save(_contiguous(head.state_dict())))
    if trained:
        changed = {k: v for k, v in backbone.state_dict().items() if k.startswith(_prefixes(trained))}
        write_bytes(folder / "backbone.safetensors", save(_contiguous(changed)))
    else:  # what a fine-tuning has left here is no part of this model
        (folder / "backbone.safetensors").unlink(missing_ok=True)
    if reference is not None:
        reference.save(folder / REFERENCE)
    else:
        (folder / REFERENCE).unlink(missing_ok=True)
    if seen is not None and trained:
        seen.save(folder / SEEN)
    else:
        (folder / SEEN).unlink(missing_ok=True)
    write_json(folder / "bundle.json", facts)
    write_text(folder / "README.md", model_card(facts))


def backbone_facts(spec: BackboneSpec, request: str, backbone: Backbone) -> dict[str, Any]:
    """What every artifact records of the backbone that made it."""
    return {
        "name": spec.name,
        "request": request,
        "source": spec.source,
        # a folder as it was asked for: where the project lies is no fact of the model
        "location": request if spec.source in ("folder", "file") else spec.location,
        "view": spec.view,
        "revision": backbone.identity.revision or spec.revision,
        "weights": backbone.identity.weights,
        "architecture": backbone.identity.architecture,
        "preprocessing": dict(backbone.identity.preprocessing),
        "fingerprint": backbone.fingerprint,
        "segments": list(backbone.segment_names),
        "feature_dim": backbone.feature_dim,
        "parameters": sum(p.numel() for p in backbone.parameters()),
        "licence": spec.licence,
        "pretrained_on": spec.pretrained_on,
        **({"views": backbone.table} if isinstance(backbone, AllViews) else {}),
    }


def read_facts(folder: Path) -> dict[str, Any]:
    """bundle.json of a bundle.

    Raises UserError where there is none, FormatError where its format is newer or it is damaged.
    """
    path = folder / "bundle.json"
    if not path.is_file():
        raise UserError(f"{folder} is no model bundle: it has no bundle.json; `tl run` leaves one in its model/ folder")
    facts = read_json(path)
    version = facts.get("format")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise FormatError(f"{path} has format {version}, this tl reads up to {FORMAT_VERSION}; update tl")
    lacking = [key for key, kind in FACTS.items() if not isinstance(facts.get(key), kind)]
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        lacking.insert(0, "format")
    if facts.get("precision") not in DTYPES and "precision" not in lacking:
        lacking.append(f"precision (it is '{facts['precision']}'; one of {', '.join(DTYPES)})")
    if lacking:
        raise FormatError(f"{path} is damaged: no usable {', '.join(lacking)}; train again or fetch it again")
    return facts


def seen_in(folder: Path) -> Seen | None:
    """The rows that the trained segments of a bundle have seen; None where it has none, or is of an older tl.

    Raises UserError and FormatError as Seen.load() does.
    """
    return Seen.load(folder / SEEN) if (folder / SEEN).is_file() else None


def weights_in(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of a bundle's trained segments, by the names of the backbone's state dict, and those of its head.

    Raises UserError where they can't be read.
    """
    return _tensors(folder / "backbone.safetensors"), _tensors(folder / "head.safetensors")


def model_card(facts: Mapping[str, Any]) -> str:
    """The bundle's README: what it predicts, from what, trained how."""
    backbone, training = facts["backbone"], dict(facts["training"])
    count = training.pop("trained_parameters", None)
    segments = ", ".join(facts["trained_segments"]) + (f" ({count:,} parameters)" if count else "")
    labels = ", ".join(facts["classes"][:50]) + (" ..." if len(facts["classes"]) > 50 else "")
    lines = [
        f"# {facts['task'].capitalize()} model for {facts['modality']} data",
        "",
        f"- Backbone: {backbone['name']} ({backbone['architecture']}), weights sha256 {backbone['weights']}, "
        f"revision {backbone['revision'] or 'not known'}, licence {backbone['licence'] or 'not stated'}",
        f"- Pretrained on: {backbone['pretrained_on'] or 'not stated'}",
        f"- Head: {facts['head']}; trained segments: {segments or 'none (frozen)'}",
        f"- Labels: {labels or 'a number'}",
        *_training_lines(training),
        "",
        "Predict with `tl predict THIS_FOLDER FILE...`. The test metrics of the run lie in metrics.json.",
        "",
    ]
    return "\n".join(lines)


def _training_lines(training: dict[str, Any]) -> list[str]:
    """How the model was trained, for its card; what is not known of it (None) stays out."""
    strategy, asked, why = training.pop("strategy"), training.pop("asked", None), training.pop("why", None)
    lines = [f"- Strategy: {strategy}" + (f", chosen by auto: {why}" if asked == "auto" and why else "")]
    divisor = training.pop("temperature", None)
    if divisor is not None:
        lines.append(f"- Calibration: logits are divided by {divisor:.3g}, which validation rows asked for")
    if training.pop("memorised", False):
        lines.append("- **Warning: it has memorised training rows**; the run's report says more")
    told = {key: value for key, value in sorted(training.items()) if value is not None}
    return lines + [f"- {key.replace('_', ' ').capitalize()}: {value}" for key, value in told.items()]


def _at_view_of(wanted: Mapping[str, Any], spec: BackboneSpec, folder: Path) -> BackboneSpec:
    """The spec at the view that a bundle stands on. Raises UserError where it is at another one."""
    view = wanted.get("view")
    if spec.view is None and view is not None:
        return at_view(spec, view)
    if spec.view != view:
        stands = f"its view {view!r}" if view else "all of it"
        raise UserError(
            f"{folder} was trained on {wanted['name']}, and {spec.name} is another view of a backbone; the model takes "
            f"{stands}: give the backbone without #{spec.view}"
        )
    return spec


def _load_head(head: Head, path: Path) -> None:
    """Put the head's weights into it. Raises UserError where they are not those of its classes and features."""
    tensors = _tensors(path)
    if {k: v.shape for k, v in tensors.items()} != {k: v.shape for k, v in head.state_dict().items()}:
        raise UserError(
            f"{path} does not hold the weights of a head for the classes in bundle.json beside it: one of the two was "
            "changed or comes from another model; train again or fetch both again"
        )
    head.load_state_dict(tensors)


def _load_trained(backbone: Backbone, path: Path, trained: Sequence[str]) -> None:
    """Put the trained segments' weights into the backbone. Raises UserError where they are not just those."""
    tensors = _tensors(path)
    wanted = {k: v.shape for k, v in backbone.state_dict().items() if k.startswith(_prefixes(trained))}
    if {k: v.shape for k, v in tensors.items()} != wanted:
        raise UserError(
            f"{path} does not hold the weights of the segments {', '.join(trained)} of the backbone at hand: it was "
            "written by another version of the backbone's plugin; install that version, or train again"
        )
    backbone.load_state_dict(tensors, strict=False)


def _tuned(identity: Identity, path: Path) -> Identity:
    """The identity of a backbone with the file's weights in it: its features are not the pretrained one's."""
    digest = hashlib.sha256(identity.weights.encode() + path.read_bytes())
    return dataclasses.replace(identity, weights=digest.hexdigest())


def _prefixes(segments: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"segments.{name}." for name in segments)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"unreadable {path}: {str(error).splitlines()[0]}; train again or fetch it again") from error


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous().clone() for key, value in sorted(tensors.items())}


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    keys = sorted(set(then) | set(now))
    return [(k, then.get(k), now.get(k)) for k in keys if _plain(then.get(k)) != _plain(now.get(k))]


def _plain(value: Any) -> Any:
    """A value as JSON gives it back, so that tuples compare equal to lists."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
