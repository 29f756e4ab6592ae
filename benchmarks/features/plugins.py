"""The registry, also where the repository is only on the path: machines with a GPU are often no place to install on."""

from __future__ import annotations

from importlib import import_module

from tl_core.registry import Registry, load_registry

OURS = ("tl_image", "tl_text", "tl_audio")


def registry_here() -> Registry:
    """The installed plugins; where none is, the repository's own by their import names."""
    registry = load_registry()
    return registry if registry.modalities else load_registry([(name, import_module(name)) for name in OURS])
