"""The weights, configurations and tokenizers that a project may ask for, as files that can travel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tl_core.config import RunConfig
from tl_core.errors import UserError
from tl_core.pins import at_commit, pinned
from tl_core.registry import Registry
from tl_core.steps.backbone import located
from tl_core.types import BackboneSpec
from tl_core.weights import WEIGHT_SUFFIXES, folder_here, weights_here
from tl_flows.offline.contents import HUB, TREE, WEIGHTS


@dataclass
class Weights:
    """What was found. files: path in the bundle -> here; moved: as Contents.moved; packages: names of dists.

    faults: why something that was asked for can't travel; left_out: what a preset would like and is not here.
    """

    files: dict[str, Path] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    packages: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def weights_of(
    config: RunConfig,
    registry: Registry,
    modality: str,
    root: Path,
    repository: Path,
    models: Iterable[Mapping[str, Any]],
) -> Weights:
    """Of the backbones that may compete, and of those that models stand on.

    repository: git's root, in which a project's own weights keep their place; models: facts of bundles. What is not
    here is fetched where a network allows it.
    """
    found = Weights()
    for spec, must in _wanted(config, registry, modality, root, models, found):
        fault = _fetched(spec) or _add(found, spec, repository)
        if fault:
            (found.faults if must else found.left_out).append(f"{spec.name}: {fault}")
    return found


def _fetched(spec: BackboneSpec) -> str:
    """Fetch weights that are not here, by whatever files their loader reads; why that failed."""
    if not weights_here(spec):
        try:
            spec.build()
        except UserError as error:
            return str(error)
    return ""


def _wanted(
    config: RunConfig,
    registry: Registry,
    modality: str,
    root: Path,
    models: Iterable[Mapping[str, Any]],
    found: Weights,
) -> Iterator[tuple[BackboneSpec, bool]]:
    """(spec at the commit that is used, whether it must travel: a preset's others are enough)."""
    from tl_core.extraction import resolve_device
    from tl_core.steps.select_step import candidates

    for name in candidates(config, registry, modality, root, resolve_device(config.extract.device).type):
        try:
            yield pinned(registry.backbone(located(name, root), modality), root), bool(config.select.backbones)
        except UserError as error:
            found.faults.append(str(error))
    for facts in models:
        stands = facts["backbone"]
        try:
            spec = registry.backbone(located(stands["request"], root), facts["modality"])
            yield at_commit(spec, stands["revision"]), True
        except UserError as error:
            found.faults.append(str(error))


def _add(found: Weights, spec: BackboneSpec, repository: Path) -> str:
    """Add what a backbone is built from; why that can't travel."""
    folder = folder_here(spec)
    if spec.offline is not None:
        return f"only its library knows where its weights lie; name their file, such as {spec.name}@FILE"
    if spec.source == "package":
        found.packages.add(spec.location.partition("/")[0].partition(".")[0].replace("_", "-"))
    elif folder is None:
        return f"no weights at {spec.location}"
    elif spec.source == "hub":
        found.files.update(_hub_files(folder))
    else:
        _add_local(found, Path(spec.location).expanduser(), _local_files(spec, folder), repository)
    return ""


def _hub_files(snapshot: Path) -> dict[str, Path]:
    """The files of a snapshot in the hub's cache, and the names (refs) under which its commit is known."""
    base = snapshot.parents[1]
    inside = f"{HUB}/{base.name}"
    files = {f"{inside}/snapshots/{snapshot.name}/{path}": snapshot / path for path in _names(snapshot)}
    for name in _names(base / "refs"):
        ref = base / "refs" / name
        if ref.read_text(encoding="utf-8").strip() == snapshot.name:
            files[f"{inside}/refs/{name}"] = ref
    return files


def _local_files(spec: BackboneSpec, folder: Path) -> list[Path]:
    """A folder's files; of a weights file itself and what lies beside it: its configuration and tokenizer."""
    if spec.source == "folder":
        return [folder / name for name in _names(folder)]
    beside = [path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix not in WEIGHT_SUFFIXES]
    return [Path(spec.location).expanduser(), *(path for path in beside if path.suffix in (".json", ".txt", ".model"))]


def _add_local(found: Weights, given: Path, files: Sequence[Path], repository: Path) -> None:
    """Weights in the repository keep their place, others get one in the bundle."""
    folder = given if given.is_dir() else given.parent
    absolute = folder.resolve()
    if absolute.is_relative_to(repository):
        place = f"{TREE}/{absolute.relative_to(repository).as_posix()}"
    elif str(given) in found.moved:
        return
    else:
        place = f"{WEIGHTS}/{len(found.moved)}-{folder.name}"
        found.moved[str(given)] = place if given.is_dir() else f"{place}/{given.name}"
    for path in files:
        found.files[f"{place}/{path.relative_to(folder).as_posix()}"] = path


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
