"""The README's Python runs as it stands, its links lead somewhere, and its commands exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MESSAGES = {
    "parcel": "my parcel number {} has not arrived|where is parcel {}|the courier lost parcel {}",
    "refund": "please refund order {}|i want my money back for order {}|when do i get the refund for {}",
}


@pytest.mark.slow
def test_the_python_lines_run(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(code) == 1
    quick = code[0].replace('out="tl-run")', 'out="tl-run", settings={"tune.minutes": 0})')
    assert quick != code[0]
    rows = [f"{t.format(100 + i)},{label}" for label, ts in MESSAGES.items() for t in ts.split("|") for i in range(10)]
    (tmp_path / "messages.csv").write_text("\n".join(["text,label", *rows]))
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", quick], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    accuracy = float(done.stdout.split()[0])
    assert 0 <= accuracy <= 1
    assert "label='parcel'" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "messages.csv", "tl-run"]


def test_links_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize(
    "page", ["README.md", "docs/cache.md", "docs/offline.md", "docs/registry.md", "docs/tuning.md"]
)
def test_the_commands_exist(page: str) -> None:
    from tl_flows.cli import tl

    shell = "\n".join(re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.S))
    for name, inner in re.findall(r"\btl ([\w-]+)(?: (\w+))?", shell):
        context = click.Context(tl)
        command = tl.get_command(context, name)
        assert command is not None, name
        if isinstance(command, click.Group):
            assert inner in command.list_commands(context)
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", shell, flags=re.M):
        assert f"\n{target}:" in makefile
