"""What `champion`, `challenger` and `v3` mean where a command takes a model or a run."""

from __future__ import annotations

import re
from pathlib import Path

import click

from tl_core.errors import UserError, did_you_mean
from tl_flows.bundles import bundle_at
from tl_flows.model_registry import ModelRegistry
from tl_flows.project import find_project
from tl_flows.registry_state import ALIASES, Version

_NUMBER = re.compile(r"v\d+(\.\d+){0,2}")


def is_name(text: str) -> bool:
    """Whether a text is a name in the form of the model registry's."""
    return text in ALIASES or _NUMBER.fullmatch(text) is not None


def version_named(project: Path, name: str) -> Version:
    """The version of a project's model. Raises UserError that says what there is where there is none of that name."""
    return ModelRegistry.open(project).state().version(name)


def revision_named(project: Path, name: str) -> str:
    """The commit of a name of the registry; any other name as it is: a revision that git may know.

    Raises UserError where nothing has an alias that is asked for.
    """
    if not is_name(name):
        return name
    state = ModelRegistry.open(project).state()
    found = state.version(name) if name in ALIASES else state.find(name)
    return found.commit if found is not None else name


def bundle_named(given: Path) -> tuple[Path, Path | None]:
    """(folder of a model, its project where the registry found it) of a path, or of a name in the project here.

    A path that exists wins, which is said. Raises UserError where the registry has no such model or it is not at hand.
    """
    name = str(given)
    if given.exists():
        say_path_wins(given)
        return given, None
    if is_name(name):
        project = require_here(name)
        return bundle_at(project, version_named(project, name).commit), project
    if find_project(Path.cwd()) is not None and given.parent == Path() and (hint := did_you_mean(name, ALIASES)):
        raise UserError(f"no model {name}{hint} A folder that holds one works too")
    return given, None


def require_here(name: str) -> Path:
    """The project that the working folder lies in. Raises UserError where a name of the registry means nothing here."""
    project = find_project(Path.cwd())
    if project is None:
        raise UserError(
            f"no folder {name} here, and as a name of the model registry it needs a project, but {Path.cwd()} lies in "
            "none; go to the project's folder, or name the folder of a model"
        )
    return project


def say_path_wins(given: Path) -> None:
    """Tell, on standard error, that a name was taken as the path that it is as well."""
    if is_name(str(given)) and find_project(Path.cwd()) is not None:
        click.echo(
            f"tl: {given} is taken as the path that is here; for the model registry's {given}, rename that, or call "
            "this from another folder of the project",
            err=True,
        )
