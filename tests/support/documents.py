"""The code blocks of the documentation, and the environment that a user runs them in."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def blocks(page: str, section: str, language: str) -> list[str]:
    """The code blocks of a language in one section of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    (found,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, flags=re.S | re.M)
    inside: list[str] = re.findall(rf"^```{language}\n(.*?)^```", found, flags=re.S | re.M)
    assert inside, f"{page} has no {language} block under {section}"
    return inside


def activated() -> dict[str, str]:
    """The environment with this interpreter's commands first, as where its virtual environment is activated."""
    return {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
