"""Handing what MLflow is told to a process that sends it, which has little time and can be ended at any moment.

mlflow has no limit for the whole, and a name that no server resolves blocks inside the system. That process has one
(child.py), and ends with this one's group.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tl_mlflow.model import Model
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
    """MLflow did not get what it was to be told, or not all of it; the text says why."""


def send(record: Record, uri: str, experiment: str, folder: Path) -> str:
    """Make a run of a record and return where it is. Raises TrackingError where that fails.

    folder: what a relative address starts from.
    """
    code, answer = _talk("tl_mlflow.sending", experiment, record.dump(), uri, folder)
    if code == 0:
        page = _page(uri, f"experiments/{answer['experiment']}/runs/{answer['run']}")
        return f"run '{record.name}' in experiment '{experiment}'{page}"
    what = f"{answer['missing']} of this run are not in it" if "missing" in answer else "this run is not in it"
    raise TrackingError(
        f"{_fault(code, answer, uri)}; {what}, all else is well "
        "(evaluate again to send it; MLFLOW_TRACKING_URI names the server, without it nothing is sent)"
    )


def mirror(model: Model, uri: str, experiment: str, folder: Path) -> str:
    """Bring MLflow's registered model up to date and return what it has now. Raises TrackingError where that fails.

    experiment: where the runs are that its versions are linked to; folder: what a relative address starts from.
    """
    code, answer = _talk("tl_mlflow.registering", experiment, model.dump(), uri, folder)
    if code == 0:
        versions = f"{len(model.versions):,} version{'' if len(model.versions) == 1 else 's'}"
        serves = model.aliases["champion"]
        serving = f"{serves} is the champion" if serves else "no champion"
        page = _page(uri, f"models/{quote(model.name, safe='')}")
        return f"model '{model.name}': {versions}, {serving}{page}"
    raise TrackingError(
        f"{_fault(code, answer, uri)}; what tl has registered and promoted stands, and MLflow has not all of it "
        "(`tl registry mirror` sends it again, as does the next promotion or retrain)"
    )


def without_password(text: str) -> str:
    """A text whose addresses have lost user and password."""
    return re.sub(r"://[^/@\s]+@", "://", text)


def _talk(module: str, argument: str, text: str, uri: str, folder: Path) -> tuple[int, dict[str, Any]]:
    """Exit code and answers of a module that runs in a process of its own."""
    # -P: what lies in the current folder must not be imported in mlflow's stead
    command = [sys.executable, "-P", "-m", module, argument]
    code, output = _run(command, text, {**SETTINGS, **os.environ, "MLFLOW_TRACKING_URI": uri}, folder)
    return code, _answer(output)


def _run(command: list[str], text: str, environment: dict[str, str], folder: Path | None = None) -> tuple[int, str]:
    """Exit code and output of a command that is gone when this returns or is interrupted."""
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=null, text=True, env=environment, cwd=folder
    ) as process:
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


def _page(uri: str, place: str) -> str:
    if not uri.startswith(("http://", "https://")):
        return ""
    return f": {without_password(uri).rstrip('/')}/#/{place}"


def _fault(code: int, answer: dict[str, Any], uri: str) -> str:
    why = answer.get("error") or _ended(code)
    return f"MLflow at {without_password(uri)}: {without_password(why).rstrip('.')}"


def _ended(code: int) -> str:
    if code == -signal.SIGALRM:
        return "it does not answer"
    return f"sending ended with exit code {code}"
