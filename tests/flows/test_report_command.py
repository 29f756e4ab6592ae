"""`tl report`: the page of a finished run, wherever it lies, and its verdicts in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from reports import full_demo
from tl_flows import cli

from tl_core.workspace import write_json


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An output folder of `tl run --data`."""
    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    (folder / "artifacts" / "evaluate").mkdir(parents=True)
    full_demo().save(folder / "artifacts" / "evaluate" / "report.json")
    write_json(folder / ".tl" / "run" / "tune.json", {"seconds": 61.5})
    return folder


@pytest.mark.parametrize("part", ["", "artifacts"])
def test_a_run_is_named_by_its_folder_or_its_artifacts(
    run: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", str(run / part)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(run / "report.html")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "61.5" in page


def test_verdicts_and_next_steps_are_printed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Result: above its floors. Accuracy 0.929")
    assert lines[1].startswith("Transfer: helps. ")
    assert "What to do next:" in lines
    assert any(line.startswith("  1. Take out the copies between the splits: ") for line in lines)


def test_the_page_goes_where_it_is_wanted(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "elsewhere" / "page.html"
    assert cli.main(["report", str(run), "--output", str(target)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(target)
    assert target.is_file()
    assert not (run / "report.html").exists()


def test_the_browser_opens_only_when_asked(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("click.launch", opened.append)
    assert cli.main(["report", str(run)]) == 0
    assert opened == []
    assert cli.main(["report", str(run), "--open"]) == 0
    assert opened == [str(run / "report.html")]
