"""Editing params.yaml the way `dvc exp run -S` does: values change, comments and order stay."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tl_core.config import RunConfig, apply_override, validate
from tl_core.errors import UserError
from tl_core.workspace import write_text


def edit_params(path: Path, edits: Mapping[str, Any]) -> RunConfig:
    """Set dotted keys in a params file and return the config that it now holds.

    The file is written only where the result is valid and differs. Raises UserError with every fault otherwise.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1000  # never fold a line that the user wrote as one
    yaml.representer.add_representer(type(None), _null)
    try:
        before = path.read_text(encoding="utf-8")
        values: Any = yaml.load(before) or {}
    except (OSError, YAMLError) as error:
        raise UserError(f"unreadable config {path}: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise UserError(f"unreadable config {path}: expected keys and values at the top level")
    for key, value in edits.items():
        apply_override(values, key, value)
    config = validate(values)
    if edits:
        stream = io.StringIO()
        yaml.dump(values, stream)
        if stream.getvalue() != before:
            write_text(path, stream.getvalue())
    return config


def _null(representer: Any, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")
