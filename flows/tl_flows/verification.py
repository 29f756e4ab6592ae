"""Everything that a project pins against what is there: weights, data, step outputs, and models of the registry."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tl_core.config import load_config
from tl_core.digests import file_digest
from tl_core.errors import UserError
from tl_core.names import split_view
from tl_core.pins import LOCK, Pins, at_commit
from tl_core.progress import progress
from tl_core.registry import Registry, load_registry
from tl_core.steps.backbone import located
from tl_core.weights import weights_here
from tl_core.workspace import Workspace
from tl_flows.bundles import bundle_at, digest_at
from tl_flows.dvc_objects import LEGACY, Object, objects_at
from tl_flows.git import GitError, git
from tl_flows.project import PARAMS
from tl_flows.recorded_files import Recorded, recorded_files
from tl_flows.registry_state import Version

State = Literal["whole", "changed", "missing", "not checked"]
FAULTS = ("changed", "missing")
_NAMED = 3  # files named of those that are not as they were
_SHOWN = 12  # digits of a digest


@dataclass(frozen=True)
class Item:
    """One thing that is pinned. detail: what is wrong, or where the right one is."""

    kind: Literal["weights", "data", "output", "model"]
    name: str
    state: State
    detail: str = ""


def verify_workspace(root: Path, workspace: Workspace, champion: Version | None) -> Iterator[Item]:
    """The project as it lies here: every byte of its data and step outputs is read, and the champion's model."""
    for record in recorded_files(root):
        yield _files(record)
    facts = _json(workspace.model / "bundle.json")
    modality = load_config(root / PARAMS).modality or facts.get("modality")
    yield from _weights(root, Pins.at(root), facts.get("backbone", {}), modality)
    if champion is not None:
        yield _model(root, champion.name, champion.commit, champion)


def verify_version(root: Path, name: str, commit: str, version: Version | None) -> Iterator[Item]:
    """A version as DVC's cache holds it: data, step outputs and model, and the weights that its commit pins.

    version: None for a commit that is none.
    """
    found = objects_at(root, commit)
    groups: dict[str, list[Object]] = defaultdict(list)
    for one in found.objects:
        groups[one.output].append(one)
    for output, objects in groups.items():
        yield _objects(output, objects)
    for output in found.lost:
        yield Item(_kind(output), output, "missing", "the list of its files is neither in DVC's cache nor its remote")
    model = _model(root, name, commit, version)
    yield model
    facts = _json(bundle_at(root, commit) / "bundle.json") if model.state == "whole" else {}
    yield from _weights(root, _pins_at(root, commit), facts.get("backbone", {}), facts.get("modality"))


def _files(record: Recorded) -> Item:
    """Files in the workspace against what DVC recorded of them."""
    if record.files is None:
        return Item(record.kind, record.name, "missing" if record.lost else "not checked", record.why)
    here = record.present()
    if not here:
        return Item(record.kind, record.name, "missing", record.remedy)
    faults = {"missing": sorted(record.files.keys() - here.keys()), "added": sorted(here.keys() - record.files.keys())}
    both = sorted(record.files.keys() & here.keys())
    faults["changed"] = []
    with progress(sum(here[name].stat().st_size for name in both), f"verify {record.name}", unit="B") as bar:
        for name in both:
            if file_digest(here[name]) != record.files[name]:
                faults["changed"].append(name)
            bar.update(here[name].stat().st_size)
    told = _told(faults)
    return Item(record.kind, record.name, "changed" if told else "whole", f"{told}; {record.remedy}" if told else "")


def _objects(output: str, objects: list[Object]) -> Item:
    """Files in DVC's cache against their own names."""
    missing, changed = [], []
    with progress(len(objects), f"verify {output}", unit="file") as bar:
        for one in objects:
            if not one.here:
                missing.append(one.md5[:_SHOWN])
            elif one.info.name != LEGACY and file_digest(one.path) != one.md5.removesuffix(".dir"):
                changed.append(one.md5[:_SHOWN])
            bar.update()
    told = _told({"missing": missing, "changed": changed})
    remedy = {True: "delete them from DVC's cache, then `dvc fetch`", False: "`dvc fetch` where they were pushed"}
    state: State = "changed" if changed else "missing" if missing else "whole"
    return Item(_kind(output), output, state, f"in DVC's cache: {told}; {remedy[bool(changed)]}" if told else "")


def _kind(output: str) -> Literal["data", "output"]:
    return "output" if "artifacts/" in f"{output}/" else "data"


def _told(faults: Mapping[str, list[str]]) -> str:
    """`1 changed (a.txt), 2 missing (b.txt, c.txt)`."""
    return ", ".join(
        f"{len(names):,} {kind} ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})"
        for kind, names in faults.items()
        if names
    )


def _model(root: Path, name: str, commit: str, version: Version | None) -> Item:
    """A version's model, as it would serve, against dvc.lock of its commit and its tag."""
    try:
        bundle, digest = bundle_at(root, commit), digest_at(root, commit)
    except UserError as error:
        damaged = "damaged" in str(error)
        return Item("model", name, "changed" if damaged else "missing", str(error).splitlines()[0])
    facts = version.facts if version is not None else None
    if facts is not None and facts.bundle != digest:
        told = f"its tag says {facts.bundle[:_SHOWN]}, dvc.lock of its commit {digest[:_SHOWN]}"
        return Item("model", name, "changed", f"{told}; fetch the tags anew: git fetch --tags --force")
    return Item("model", name, "whole", str(bundle))


def _weights(root: Path, pins: Pins, used: Mapping[str, Any], modality: str | None) -> Iterator[Item]:
    """Weights that are pinned, and those that the run used; each backbone is opened, one at a time.

    used: facts of the run's backbone, empty where there are none.
    """
    wanted = dict(pins.weights)
    name = str(used.get("request") or used.get("name") or "")
    if name:
        wanted.setdefault(split_view(name)[0], str(used["weights"]))
    if not wanted:
        return
    registry = load_registry()
    for name, digest in sorted(wanted.items()):
        yield _opened(root, registry, pins, name, digest, [modality] if modality else registry.modalities)


def _opened(root: Path, registry: Registry, pins: Pins, name: str, digest: str, modalities: list[str]) -> Item:
    faults = []
    for modality in modalities:
        try:
            spec = registry.backbone(located(name, root), modality)
        except UserError as error:
            faults.append(str(error).splitlines()[0])
            continue
        spec = at_commit(spec, pins.revisions.get(spec.location))
        if not weights_here(spec):
            return Item("weights", name, "missing", "not on this machine; a run downloads them where it can")
        try:
            found = spec.build().identity.weights
        except UserError as error:
            return Item("weights", name, "changed", str(error).splitlines()[0])
        if found == digest:
            return Item("weights", name, "whole")
        told = f"sha256 {found[:_SHOWN]} instead of {digest[:_SHOWN]}"
        return Item("weights", name, "changed", f"{told}; put the pinned ones back, or tl backbones --unpin {name}")
    return Item("weights", name, "missing", "; ".join(faults))


def _pins_at(root: Path, commit: str) -> Pins:
    try:
        return Pins.from_text(git(root, "show", f"{commit}:./{LOCK}"), Path(f"{commit[:_SHOWN]}:{LOCK}"))
    except GitError:  # a commit without pins
        return Pins()


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
