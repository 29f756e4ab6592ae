"""The installed code as a file that DVC can depend on: code outside the repository is invisible to it."""

from __future__ import annotations

import hashlib
import importlib.util
from importlib.metadata import entry_points, version
from pathlib import Path

from tl_core.plugins import GROUP
from tl_core.workspace import write_json

FILE = "tl-code.json"


def write_code_version(path: Path) -> None:
    """Write version and content hash of tl and of every installed plugin; the same code gives the same bytes."""
    write_json(path, installed_code())


def installed_code() -> dict[str, dict[str, str]]:
    """Package -> `version` and `sha256` of its files, of tl and of every installed plugin."""
    packages = {"tl_core": version("tl-core"), "tl_flows": version("tl-flows")}
    for point in entry_points(group=GROUP):
        packages[point.module.partition(".")[0]] = point.dist.version if point.dist else "0"
    return {
        name: {"version": number, "sha256": _digest(folder)}
        for name, number in packages.items()
        if (folder := package_folder(name)) is not None
    }


def package_folder(package: str) -> Path | None:
    """The folder of an installed package, None where there is none."""
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            total.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
