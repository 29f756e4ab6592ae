"""The author's guide is true: its code makes a plugin that passes the contract, and it names every hook."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tl_core import hookspecs

GUIDE = Path(__file__).resolve().parents[2] / "plugins" / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.S)


def test_the_code_of_the_guide_passes_the_contract(tmp_path: Path) -> None:
    *module, suite = blocks("python")
    package = tmp_path / "tl_letters"
    package.mkdir()
    (package / "__init__.py").write_text("\n".join(module), encoding="utf-8")
    (tmp_path / "test_letters.py").write_text(suite, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_letters.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_every_hook_is_in_the_guide_with_its_signature() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    for name, function in vars(hookspecs).items():
        if name.startswith("tl_"):
            arguments = ", ".join(function.__code__.co_varnames[: function.__code__.co_argcount])
            assert f"def {name}({arguments}):" in text
            assert f"`{name}({arguments})`" in text
