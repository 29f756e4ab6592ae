"""Images for tl: a loader and backbones from timm, torchvision and transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tl_core import hookimpl

if TYPE_CHECKING:
    from tl_core import BackboneSpec, HeadSpec, Loader


@hookimpl
def tl_loaders() -> list[Loader]:
    """The image loader."""
    from tl_image.loader import ImageLoader

    return [ImageLoader()]


@hookimpl
def tl_backbones() -> list[BackboneSpec]:
    """Well-known timm models, from small to large."""
    from tl_image.catalogue import catalogue

    return catalogue()


@hookimpl
def tl_resolve_backbone(name: str, modality: str) -> list[BackboneSpec]:
    """Any timm model, hub id, local folder or weights file with its architecture."""
    if modality != "image":
        return []
    from tl_image.resolve import resolve

    return resolve(name)


@hookimpl
def tl_heads() -> list[HeadSpec]:
    """Linear heads."""
    from tl_core import linear_heads

    return linear_heads("image")
