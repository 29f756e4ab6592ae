"""Reading a step's JSON into dataclasses: another format or a damaged file is refused with a remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from tl_core.errors import FormatError

T = TypeVar("T")


def read_format(kind: type[T], path: Path, version: int, what: str, step: str) -> T:
    """A file of exactly this format version as `kind`, which is a dataclass; unknown keys are let pass.

    what: the file's contents, step: the step that writes it, both as an error names them. Raises FormatError.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        found = value["format"]
        if found > version:
            raise FormatError(f"{path} has format {found}, this tl reads format {version}; update tl")
        if found < version:
            raise FormatError(f"{path} has format {found}, of an older tl; run `tl {step}` again")
        return TypeAdapter(kind).validate_python(value)
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise FormatError(f"unreadable {what} {path}: {type(error).__name__}; run `tl {step}` again") from error
