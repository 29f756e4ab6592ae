"""The command: fast help, and how faults are told."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tl_flows import cli

from tl_core.errors import UserError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from tl_flows.cli import main; code = main(['--help']); "
        "heavy = {'torch', 'prefect', 'dvc', 'rich', 'numpy', 'pydantic'} & set(sys.modules); "
        "sys.exit(code or str(heavy) if heavy else 0)"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - started < 5  # a quiet machine takes 0.2 s
    for command in ("init", "run", "version", "select", "extract", "tune", "evaluate", "predict", "report", "cache"):
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize(
    ("given", "spins"), [({}, cli.SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_threads_that_wait_give_way_to_others(given: dict[str, str], spins: str | None) -> None:
    script = "import os; from tl_flows.cli import main; main(['--version']); print(os.environ.get('GOMP_SPINCOUNT'))"
    own = {key: value for key, value in os.environ.items() if not key.startswith(("GOMP_", "OMP_"))}
    done = subprocess.run([sys.executable, "-c", script], env={**own, **given}, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == str(spins)


CACHE = ("info", "verify", "gc", "export", "import")
REGISTRY = ("list", "show", "history", "register", "promote", "rollback", "diff")
NESTED = [*(["cache", name] for name in CACHE), *(["registry", name] for name in REGISTRY)]


@pytest.mark.parametrize("command", [[], *([name] for name in cli._COMMANDS), *NESTED])
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command, "--help"]) == 0
    assert "Usage: tl" in capsys.readouterr().out


def test_an_unknown_command_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rum"]) == 2
    assert "no command 'rum'; did you mean run?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run"], "tl: {here} lies in no tl project (no dvc.yaml with tl's steps in a DVC repository); give"),
        (["select"], "tl: {here} lies in no tl project"),
        (["run", "--data", "nowhere"], "tl: no such data: nowhere; give a folder of samples or a table"),
        (["run", "--out", "o"], "tl: --out goes with --data"),
        (["run", "--data", ".", "--set", "tune"], "tl: can't read the setting 'tune'; expected key=value"),
        (["run", "--data", ".", "--set", "tune.stratgy=probe"], "tl: unknown config key 'tune.stratgy'; did you mean"),
        (["run", "--data", ".", "--out", "file/x"], "tl: can't write to the output folder file/x: Not a dir"),
        (["predict", "nowhere"], "tl: nothing to predict"),
        (["predict", "nowhere", "a", "--out", "p.txt"], "tl: can't write predictions as '.txt'; allowed: .csv, .jsonl"),
        (["predict", "nowhere", "a"], "tl: nowhere is no model bundle"),
        (["report", "nowhere"], "tl: no report in {here}/nowhere"),
        (["init"], "tl: {here} is in no git repository"),
    ],
)
def test_what_can_not_be_used_is_told_without_a_traceback(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.startswith(text.format(here=tmp_path.resolve()))


def test_every_fault_gets_its_own_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--data", ".", "--set", "seed=-1", "--set", "sed=1"]) == 2
    assert [line[:22] for line in capsys.readouterr().err.splitlines()] == [
        "tl: config key 'seed' ",
        "tl: unknown config key",
    ]


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def outside_config(*_: object) -> None:
        raise error

    monkeypatch.setattr("tl_flows.runs.outside_config", outside_config)


def test_ctrl_c_exits_130_and_says_what_is_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(KeyboardInterrupt(), monkeypatch)
    assert cli.main(["run", "--data", "."]) == 130
    assert "features and finished steps are kept" in capsys.readouterr().err


def test_a_fault_of_tl_is_one_line_and_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(ZeroDivisionError("by zero"), monkeypatch)
    assert cli.main(["run", "--data", "."]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tl: unexpected ZeroDivisionError: by zero; the traceback lies in ")
    assert "ZeroDivisionError: by zero" in Path(line.rpartition(" ")[2]).read_text()
    assert cli.main(["--debug", "run", "--data", "."]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_is_told_with_its_remedy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(OSError(errno.ENOSPC, "No space left on device"), monkeypatch)
    assert cli.main(["run", "--data", "."]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tl: the disk is full; free some space, or choose other folders with --out")


def test_a_fault_that_a_full_disk_explains_is_told_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(RuntimeError("Server error '500 Internal Server Error'"), monkeypatch)
    monkeypatch.setattr("tl_flows.project.LITTLE_BYTES", 1 << 60)  # more than any disk has free
    assert cli.main(["run", "--data", "."]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"tl: the disk of .* is full \(.* MB free\); free some space, .* goes on from them", line)


def test_user_faults_of_a_step_keep_their_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(UserError("one class\nempty folder"), monkeypatch)
    assert cli.main(["run", "--data", "."]) == 2
    assert capsys.readouterr().err == "tl: one class\ntl: empty folder\n"


def test_plugins_and_backbones_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plugins"]) == 0
    assert "tl_text" in capsys.readouterr().out
    assert cli.main(["backbones", "text"]) == 0
    assert "minilm" in capsys.readouterr().out.lower()
    assert cli.main(["backbones", "txt"]) == 2
    assert "did you mean text?" in capsys.readouterr().err
