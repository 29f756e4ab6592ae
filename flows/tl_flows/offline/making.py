"""Making a bundle: what a project needs is found first, all that is missing is told at once, then it is written."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tl_core.bundle import read_facts
from tl_core.config import RunConfig, load_config
from tl_core.errors import UserError
from tl_core.progress import progress
from tl_flows import dvc_objects
from tl_flows.bundles import bundle_at
from tl_flows.dvc_objects import Found, Object
from tl_flows.git import GitError, commit_of, git
from tl_flows.model_registry import ModelRegistry
from tl_flows.offline.contents import DVC, FEATURES, MANIFEST, README, REPOSITORY, Contents, File
from tl_flows.offline.readme import readme
from tl_flows.offline.weights import Weights, weights_of
from tl_flows.offline.writing import TAR_BLOCK, DamagedError, Writer, whole
from tl_flows.project import PARAMS, project_workspace
from tl_flows.registry_state import RegistryState, Version
from tl_flows.stage_process import StageError

if TYPE_CHECKING:
    from tl_core.registry import Registry
    from tl_core.store import FeatureStore

Models = Literal["champion", "all", "none"]


@dataclass(frozen=True)
class Made:
    """A finished bundle. size: bytes; notes: what did not travel, in sentences."""

    out: Path
    contents: Contents
    size: int
    notes: tuple[str, ...]


@dataclass
class _Plan:
    """What goes in. objects: by md5; faults: why it can't be made; notes: what people should know."""

    root: Path
    top: Path
    commit: str
    state: RegistryState
    versions: tuple[Version, ...]
    objects: dict[str, Object] = field(default_factory=dict)
    weights: Weights = field(default_factory=Weights)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    store: FeatureStore | None = None


def make(root: Path, out: Path, *, models: Models = "champion", features: bool = False) -> Made:
    """Write all that a project needs without network to a folder, or to a tar where `out` ends with .tar.

    models: which versions of the registry travel; features: the feature store too. Raises UserError that names all
    that is missing, or where the disk is too small.
    """
    from tl_core.registry import load_registry

    registry = load_registry()
    plan = _planned(root, models, registry)
    if features:
        _add_features(plan)
    if plan.faults:
        raise UserError("\n".join(dict.fromkeys(plan.faults)))
    need = _bytes(plan)
    with progress(need, "bundle", unit="B") as bar, whole(out.expanduser().resolve(), need, bar) as (writer, scratch):
        contents = _write(plan, registry, writer, scratch)
    return Made(out, contents, contents.size, tuple(plan.notes))


def _planned(root: Path, models: Models, registry: Registry) -> _Plan:
    state = ModelRegistry.open(root).state()
    commit = commit_of(root, "HEAD")
    top = Path(git(root, "rev-parse", "--show-toplevel")).resolve()
    if git(root, "rev-parse", "--is-shallow-repository") == "true":
        raise UserError(f"{top} is a shallow clone, which lacks commits of versions; `git fetch --unshallow` first")
    config = load_config(root / PARAMS)
    plan = _Plan(root, top, commit, state, _versions(state, models, config))
    if models == "champion" and state.champion is None:
        plan.notes.append("there is no champion yet, so no model of the registry travels")
    changed = git(root, "status", "--porcelain", "--untracked-files=no").splitlines()
    if changed:
        named = ", ".join(line[3:] for line in changed[:5]) + (", ..." if len(changed) > 5 else "")
        plan.notes.append(f"changes that are not committed stay here: {named}")
    _add_objects(plan, models)
    facts = []
    for version in plan.versions if not plan.faults else ():
        facts.append(read_facts(bundle_at(root, version.commit)))
    modality = config.modality or next((one["modality"] for one in facts), None) or _modality(plan, config)
    if modality is not None:
        plan.weights = weights_of(config, registry, modality, root, top, facts)
        plan.faults += plan.weights.faults
        plan.notes += [f"left out of the preset {config.select.preset}: {one}" for one in plan.weights.left_out]
    return plan


def _versions(state: RegistryState, models: Models, config: RunConfig) -> tuple[Version, ...]:
    """The versions that travel, and the one that fine-tuning starts from."""
    start = config.tune.start
    return tuple(
        version
        for version in state.versions
        if models == "all"
        or (models == "champion" and version == state.champion)
        or (start is not None and version.facts is not None and version.facts.bundle == start)
    )


def _modality(plan: _Plan, config: RunConfig) -> str | None:
    """The modality of the data, as the last run here found it."""
    from tl_core.manifest import Manifest

    workspace = project_workspace(plan.root, config)
    if workspace.manifest.is_file():
        return Manifest.load(workspace.manifest, plan.root).modality
    plan.faults.append("it is not known which backbones the data need: `tl run` once, or set modality in params.yaml")
    return None


def _add_objects(plan: _Plan, models: Models) -> None:
    """DVC's objects: the data as they are now, all of each version, and the last run as far as it is here."""
    data = dvc_objects.objects_at(plan.root, plan.commit, ())
    _take(plan, data, "the data")
    if not data.has_data:
        plan.notes.append("DVC tracks no data of this project: what git doesn't hold of them stays here")
    for version in plan.versions:
        _take(plan, dvc_objects.objects_at(plan.root, version.commit), version.name)
    if models == "none" or plan.commit in {version.commit for version in plan.versions}:
        return
    run = dvc_objects.objects_at(plan.root, plan.commit, data=False)
    if run.lost or not all(one.here for one in run.objects):
        plan.notes.append("the last commit's results are not all here: the first `tl run` there computes them")
    plan.objects.update({one.md5: one for one in run.objects if one.here})


def _take(plan: _Plan, found: Found, what: str) -> None:
    """Take objects along, fetching what only the remote has; what neither has is a fault."""
    try:
        missing = [one.output for one in dvc_objects.fetch(plan.root, found.objects)]
    except StageError as error:
        plan.faults.append(f"{what}: {error}")
        return
    away = dict.fromkeys([*found.lost, *missing])
    if away:
        plan.faults.append(
            f"{what}: {', '.join(away)} is not complete in DVC's cache, nor in its remote; bundle on "
            "the machine that has it, or push from there (`tl registry push`, `dvc push`)"
        )
    plan.objects.update({one.md5: one for one in found.objects})


def _add_features(plan: _Plan) -> None:
    from tl_core.store import FeatureStore

    store = FeatureStore(project_workspace(plan.root, load_config(plan.root / PARAMS)).store)
    if store.exists():
        plan.store = store
    else:
        plan.faults.append(f"no features are stored in {store.root}; `tl run` computes them, or leave --features out")


def _bytes(plan: _Plan) -> int:
    """About the room that the bundle takes, rounded up."""
    sizes = [one.path.stat().st_size for one in plan.objects.values()]
    sizes += [path.stat().st_size for path in plan.weights.files.values()]
    counts = dict(line.split(": ") for line in git(plan.top, "count-objects", "-v").splitlines())
    repository = 1024 * (int(counts["size"]) + int(counts["size-pack"]))
    # an export is written beside the bundle before it is copied into it
    features = 2 * sum(space.bytes for space in plan.store.info()) if plan.store else 0
    return sum(sizes) + TAR_BLOCK * len(sizes) + 2 * repository + features + (1 << 20)


def _write(plan: _Plan, registry: Registry, writer: Writer, scratch: Path) -> Contents:
    files: dict[str, File] = {}
    damaged: list[str] = []
    history = scratch / REPOSITORY
    branch = git(plan.root, "branch", "--show-current")
    try:
        git(plan.root, "bundle", "create", "--quiet", str(history), "HEAD", *([branch] if branch else []), "--tags")
    except GitError as error:
        raise UserError(f"git can't bundle {plan.top}: {error}") from error
    files[REPOSITORY] = writer.add(REPOSITORY, history)
    for one in plan.objects.values():
        try:
            files[f"{DVC}/{one.place}"] = writer.add(f"{DVC}/{one.place}", one.path, _md5(one))
        except DamagedError as error:
            damaged.append(f"{error} ({one.output})")
    if damaged:
        raise UserError(
            "DVC's cache is damaged: " + "\n".join(damaged) + "\ndelete these files and `dvc fetch`, or `tl run` anew"
        )
    for name, path in sorted(plan.weights.files.items()):
        files[name] = writer.add(name, path)
    if plan.store is not None:
        from tl_flows.stores import whole_store

        plan.store.export(scratch / FEATURES, whole_store(plan.store))
        files[FEATURES] = writer.add(FEATURES, scratch / FEATURES)
    contents = _contents(plan, registry, files)
    (scratch / README).write_text(readme(contents), encoding="utf-8")
    contents = dataclasses.replace(contents, files={**files, README: writer.add(README, scratch / README)})
    (scratch / MANIFEST).write_text(contents.text(), encoding="utf-8")
    writer.add(MANIFEST, scratch / MANIFEST)  # last: without it nothing is a bundle
    return contents


def _md5(one: Object) -> str | None:
    """What the bytes of an object must hash to; older DVC hashed text otherwise than it is stored."""
    return None if one.info.name == dvc_objects.LEGACY else one.md5.removesuffix(".dir")


def _contents(plan: _Plan, registry: Registry, files: Mapping[str, File]) -> Contents:
    versions = {plugin.dist: plugin.version for plugin in registry.plugins if plugin.dist}
    for dist in ("tl-core", "tl-flows", *sorted(plan.weights.packages)):
        versions.setdefault(dist, importlib.metadata.version(dist))
    project = plan.root.resolve().relative_to(plan.top).as_posix()
    champion = plan.state.champion
    return Contents(
        name=plan.root.resolve().name,
        project=project,
        commit=plan.commit,
        champion=champion.name if champion in plan.versions and champion is not None else None,
        versions=tuple(version.name for version in plan.versions),
        moved=plan.weights.moved,
        packages=versions,
        files=dict(files),
    )
