"""What a backbone's name is made of: `NAME`, or `NAME#VIEW` for a part of it."""

from __future__ import annotations

from pathlib import Path


def split_view(name: str) -> tuple[str, str | None]:
    """`resnet50#layer3` as ("resnet50", "layer3"); (name, None) without a view.

    A path that exists is a name as it stands, with all its `#`, also after the `@` of `ARCH@FILE`.
    """
    base, sign, view = name.rpartition("#")
    paths = {name, name.rpartition("@")[2]}
    if not (base and sign and view) or "/" in view or any(Path(path).expanduser().exists() for path in paths):
        return name, None
    return base, view
