"""What `tl init` writes: a DVC project around the user's data, with the pipeline and its parameters."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import yaml

from tl_core.config import RunConfig, describe
from tl_core.errors import UserError
from tl_flows import versioning
from tl_flows.code_version import FILE as CODE_VERSION
from tl_flows.code_version import write_code_version
from tl_flows.project import PARAMS, PIPELINE, find_repository
from tl_flows.stage_process import run_dvc

IGNORED = (
    ".tl/", ".prefect/", ".venv/", "__pycache__/", "tl-run/", "/dvc_plots/",
    # of the outputs git keeps only the metrics, which `dvc metrics diff` compares between commits
    "/artifacts/*", "!/artifacts/evaluate/", "/artifacts/evaluate/*", "!/artifacts/evaluate/metrics.json",
)  # fmt: skip
_RECORD_SECONDS = 24 * 3600.0


def init_project(root: Path, data: Path | None, *, git: bool) -> Iterator[str]:
    """Make `root` a project, telling each thing done; files that are there are kept as they are.

    root: a folder of its own, or one in a DVC repository that is there. data: what the pipeline reads, tracked by DVC
    where it lies inside the repository. Raises UserError outside of a git repository unless git is False, and where
    the data are not there.
    """
    if git and not _in_git(root):
        raise UserError(
            f"{root} is in no git repository, by which DVC tells versions apart; run `git init` first, or "
            "`tl init --no-git` for a project without history (no `dvc exp`, no `dvc metrics diff`)"
        )
    if data is not None and not data.exists():
        raise UserError(f"no such data: {data}; give a folder of samples or a table, or leave it out")
    repository = find_repository(root)
    if repository is None:
        versioning.initialise(root, git=git)
        yield "made a DVC project (.dvc/)"
    elif repository == root:
        yield "kept the DVC project that is here"
    else:
        yield f"kept the DVC repository that this folder lies in ({os.path.relpath(repository, root)})"
    repository = repository or root
    source = "data" if data is None else _inside(root, data, repository)
    yield from _write(root / PARAMS, params_text(source))
    yield from _write(root / PIPELINE, pipeline_text(source, environment=os.path.relpath(repository / ".venv", root)))
    yield from _ignore(root / ".gitignore")
    write_code_version(root / CODE_VERSION)
    yield f"wrote {CODE_VERSION}"
    yield from _track(root, data, source)


def pipeline_text(data: str, environment: str = ".venv") -> str:
    """The stages over `data`; environment: the virtual environment to look for `tl` in, relative to the project."""
    template = (resources.files("tl_flows") / "templates" / "pipeline.yaml").read_text(encoding="utf-8")
    return template.replace("@DATA@", json.dumps(data, ensure_ascii=False)).replace("@ENVIRONMENT@", environment)


def params_text(data: str) -> str:
    """Every config key with its default and its meaning, as YAML with comments."""
    lines = ["# What a run may use. `tl run --set key=value` and `dvc exp run -S key=value` change it."]
    here: list[str] = []
    for name, kind, _, meaning in describe():
        *sections, key = name.split(".")
        for depth, section in enumerate(sections):
            if here[: depth + 1] != sections[: depth + 1]:
                lines += ([] if depth else [""]) + [f"{'  ' * depth}{section}:"]
        here = sections
        value = data if name == "data.path" else _default(name)
        text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()
        comment = "; ".join(filter(None, (meaning, kind)))
        lines.append(f"{'  ' * len(sections)}{key}: {text} # {comment}")
    return "\n".join(lines) + "\n"


def _default(name: str) -> object:
    value: object = RunConfig()
    for part in name.split("."):
        value = getattr(value, part)
    return list(value) if isinstance(value, tuple) else value


def _write(path: Path, text: str) -> Iterator[str]:
    if path.exists():
        yield f"kept {path.name}, which is here already"
        return
    path.write_text(text, encoding="utf-8")
    yield f"wrote {path.name}"


def _ignore(path: Path) -> Iterator[str]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    missing = [entry for entry in IGNORED if entry not in lines]
    if missing:
        path.write_text("\n".join([*lines, *missing]) + "\n", encoding="utf-8")
        yield f"added {len(missing)} lines to .gitignore"


def _track(root: Path, data: Path | None, source: str) -> Iterator[str]:
    if data is None:
        yield textwrap.dedent("""\
            next: put the samples into data/, then
              dvc add data
              tl run""")
        return
    if Path(source).is_absolute():
        yield f"{source} lies outside the repository: watched, but not versioned"
    elif versioning.tracked(root, root / source) is not None:
        yield f"kept how {source} is tracked"
    else:
        lines: list[str] = []
        run_dvc(root, ["add", source], lines.append, _RECORD_SECONDS)
        yield f"tracked {source} with DVC ({source}.dvc)"
    yield "next: tl run"


def _inside(root: Path, data: Path, repository: Path) -> str:
    """The data's path relative to the project where they lie in its repository, absolute otherwise."""
    path = data.resolve()
    inside = path.is_relative_to(repository) and not root.is_relative_to(path)
    return Path(os.path.relpath(path, root)).as_posix() if inside else str(path)


def _in_git(root: Path) -> bool:
    try:
        done = subprocess.run(["git", "rev-parse", "--is-inside-work-tree"], cwd=root, capture_output=True, text=True)
    except OSError:
        return False
    return done.stdout.strip() == "true"
