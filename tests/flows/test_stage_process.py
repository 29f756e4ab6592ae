"""Stages in a process group of their own: output, faults, deadlines, and no orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tl_flows.stage_process import StageError, run_dvc

from tl_core.errors import UserError

REPRO = ["repro", "--single-item", "version"]
SLEEPER = """\
import os, pathlib, time
from tl_flows.stage_process import end_with_owner
pathlib.Path("stage.pid").write_text(str(os.getpid()))
end_with_owner()
time.sleep(60)
"""


def gone(pid: int, within: float = 30.0) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def wait_for(path: Path, within: float = 30.0) -> str:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if path.is_file() and path.read_text():
            return path.read_text()
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


def test_lines_come_as_they_are_written(dvc_project: Path) -> None:
    lines: list[str] = []
    run_dvc(dvc_project, REPRO, lines.append, 60)
    assert "did version" in lines
    assert (dvc_project / "artifacts" / "version" / "names.txt").is_file()


def test_what_the_stage_refused_is_the_users_fault_in_its_own_words(dvc_project: Path) -> None:
    (dvc_project / "stage.py").write_text(
        "import sys\nprint('tl: one class; give two\\ntl: empty file', file=sys.stderr)\nsys.exit(2)\n"
    )
    with pytest.raises(UserError) as raised:
        run_dvc(dvc_project, REPRO, lambda _: None, 60)
    assert str(raised.value) == "one class; give two\nempty file"


def test_another_failure_names_the_command_and_is_no_case_for_another_try(dvc_project: Path) -> None:
    (dvc_project / "stage.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(StageError, match=r"repro --single-item version` failed .*exited with 3") as raised:
        run_dvc(dvc_project, REPRO, lambda _: None, 60)
    assert not raised.value.may_pass


def test_a_stage_that_was_killed_may_be_tried_again(dvc_project: Path) -> None:
    (dvc_project / "stage.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(StageError) as raised:
        run_dvc(dvc_project, REPRO, lambda _: None, 60)
    assert raised.value.may_pass


def test_past_the_deadline_nothing_is_left_running(dvc_project: Path) -> None:
    (dvc_project / "stage.py").write_text(SLEEPER)
    with pytest.raises(StageError, match="passed its deadline of 4 s"):
        run_dvc(dvc_project, REPRO, lambda _: None, 4)
    assert gone(int(wait_for(dvc_project / "stage.pid")))


def test_the_stage_ends_when_its_owner_is_killed(dvc_project: Path) -> None:
    (dvc_project / "stage.py").write_text(SLEEPER)
    script = f"from tl_flows.stage_process import run_dvc; run_dvc(__import__('pathlib').Path('.'), {REPRO}, print, 60)"
    owner = subprocess.Popen([sys.executable, "-c", script], cwd=dvc_project, stdout=subprocess.DEVNULL)
    stage = int(wait_for(dvc_project / "stage.pid"))
    group = os.getpgid(stage)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert gone(stage)
    assert gone(group)  # the dvc process that led the group
