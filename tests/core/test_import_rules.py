"""The import rules of docs/design.md, and what a bare machine can import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_import_contracts_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_nothing_heavy_is_imported_by_importing_tl_core() -> None:
    code = "import sys, tl_core; print([m for m in ('torch', 'pyarrow', 'prefect', 'dvc', 'timm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_step_needs_neither_torch_nor_a_library_of_networks(tmp_path: Path) -> None:
    rows = "".join(f"text {i} of {label},{label}\n" for i in range(40) for label in ("a", "b"))
    (tmp_path / "data.csv").write_text(f"text,label\n{rows}")
    code = """
import sys
from tl_flows.cli import main
code = main(["version", "--data", "data.csv", "--out", "out"])
heavy = {"torch", "timm", "transformers", "torchvision", "torchaudio", "torchmetrics", "prefect", "scipy"}
print(code, sorted(heavy & set(sys.modules)))
"""
    own = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=own, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["0 []"], done.stdout + done.stderr


def test_core_runs_where_orchestrators_and_optional_extras_are_missing() -> None:
    code = """
import sys
MISSING = {'prefect', 'dvc', 'jinja2', 'matplotlib', 'torchmetrics', 'sklearn', 'rich', 'click'}
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in MISSING:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Missing())
import tl_core.bundle, tl_core.registry
from tl_core.steps import evaluate, extract, select, tune, version
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_our_packages_land_in_site_packages() -> None:
    for project in [ROOT, *(ROOT / "plugins" / m for m in ("image", "text", "audio", "mlflow")), ROOT / "flows"]:
        text = (project / "pyproject.toml").read_text()
        assert "tl_" in text.split("[tool.setuptools", 1)[1].split("[tool.ruff")[0]
        assert not any(f'"{name}"' in text.split("[tool.ruff")[0] for name in ("flows", "plugins", "tests"))
