"""Handing a record to a process that sends it, which has little time and can be ended at any moment."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

from tl_mlflow.record import Record

SETTINGS = {
    # mlflow would go on trying for some minutes; who has a slow server sets these
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


class TrackingError(Exception):
    """MLflow did not get the run, or not all of it; the text says why."""


def send(record: Record, uri: str, experiment: str) -> str:
    """Make a run of a record and return where it is. Raises TrackingError where that fails.

    In a process of its own: mlflow has no limit for the whole, and a name that no server resolves blocks inside the
    system. That process has one (sending.py), and ends with this one's group.
    """
    # -P: what lies in the current folder must not be imported in mlflow's stead
    command = [sys.executable, "-P", "-m", "tl_mlflow.sending", experiment]
    environment = {**SETTINGS, **os.environ, "MLFLOW_TRACKING_URI": uri}
    code, output = _run(command, record.dump(), environment)
    answer = _answer(output)
    if code == 0:
        return f"run '{record.name}' in experiment '{experiment}'{_link(uri, answer)}"
    why = answer.get("error") or _ended(code)
    what = f"{answer['missing']} of this run are not in it" if "missing" in answer else "this run is not in it"
    raise TrackingError(
        f"MLflow at {without_password(uri)}: {without_password(why).rstrip('.')}; {what}, all else is well "
        "(evaluate again to send it; MLFLOW_TRACKING_URI names the server, without it nothing is sent)"
    )


def without_password(text: str) -> str:
    """A text whose addresses have lost user and password."""
    return re.sub(r"://[^/@\s]+@", "://", text)


def _run(command: list[str], text: str, environment: dict[str, str]) -> tuple[int, str]:
    """Exit code and output of a command that is gone when this returns or is interrupted."""
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=null, text=True, env=environment) as process:
        try:
            output, _ = process.communicate(text)
        except BaseException:
            process.kill()
            process.wait()
            raise
    return process.returncode, output


def _answer(output: str) -> dict[str, Any]:
    """What the lines of JSON say together; other lines are of libraries that mlflow calls."""
    answer: dict[str, Any] = {}
    for line in output.splitlines():
        if line.startswith("{"):
            answer |= json.loads(line)
    return answer


def _link(uri: str, answer: dict[str, Any]) -> str:
    if not uri.startswith(("http://", "https://")):
        return ""
    return f": {without_password(uri).rstrip('/')}/#/experiments/{answer['experiment']}/runs/{answer['run']}"


def _ended(code: int) -> str:
    if code == -signal.SIGALRM:
        return "it does not answer"
    return f"sending ended with exit code {code}"
