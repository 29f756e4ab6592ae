"""Prefect's settings for one command: quiet, offline-safe, and pointed at the right server."""

from __future__ import annotations

import os
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tl_core.errors import UserError

LOCAL_PORT = 4200  # Prefect's own default
LOCAL_SERVER = f"http://127.0.0.1:{LOCAL_PORT}/api"
LOCAL_HOSTS = ("127.0.0.1", "localhost")
LOGGER = "tl"
# which engine computes; what may not suit the data; what became of saved states
LOGGERS = (LOGGER, "tl_core.extraction", "tl_core.steps.select_step", "tl_core.training")
STAGE_LOGGER = f"{LOGGER}.stage"  # every line of a stage: for the run's history, not the terminal

QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    # run logs go to the server; the terminal shows tl's own lines, and errors as tl prints them
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(LOGGERS),
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


@dataclass(frozen=True)
class Server:
    """The Prefect server that a run reports to. url: None for a temporary one; settings: what reaching it takes."""

    url: str | None
    settings: dict[str, str]

    @property
    def temporary(self) -> bool:
        """True where a server has to be started for this run alone."""
        return self.url is None


def configure(home: Path, settings: Mapping[str, str]) -> None:
    """Set Prefect's environment, which has to happen before its first import; what the user has set stays."""
    for name, value in {**QUIET, "PREFECT_HOME": str(home), **settings}.items():
        os.environ.setdefault(name, value)
    # a proxy for the outside world knows nothing of this machine, but Prefect's client would ask it
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    missing = [host for host in LOCAL_HOSTS if host not in direct.split(",") and direct != "*"]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, [direct, *missing]))


def find_server() -> Server:
    """The running server that this run should use: PREFECT_API_URL, the user's profile, or the local default.

    Raises UserError where PREFECT_API_URL names a server that does not answer.
    """
    named = os.environ.get("PREFECT_API_URL")
    if named:
        # a cloud workspace answers its health check only to a key: let Prefect itself report on it
        if "PREFECT_API_KEY" not in os.environ and not answers(named, 3.0):
            raise UserError(
                f"PREFECT_API_URL is {named}, but no Prefect server answers there; start it with "
                "`prefect server start`, or unset PREFECT_API_URL to use a temporary one"
            )
        return Server(named, {})
    profile = user_profile()
    url = profile.get("PREFECT_API_URL")
    if url and ("PREFECT_API_KEY" in profile or answers(url, 1.0)):
        return Server(url, profile)
    if answers(LOCAL_SERVER, 0.3):
        return Server(LOCAL_SERVER, {"PREFECT_API_URL": LOCAL_SERVER})
    return Server(None, {})


def user_profile() -> dict[str, str]:
    """The settings of the user's active Prefect profile, empty where there is none.

    Read from Prefect's file, because tl's own PREFECT_HOME would hide it.
    """
    home = Path(os.environ.get("PREFECT_HOME", Path.home() / ".prefect"))
    path = Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml"))
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        name = os.environ.get("PREFECT_PROFILE", content.get("active"))
        return {str(key): str(value) for key, value in content["profiles"][name].items()}
    except (OSError, tomllib.TOMLDecodeError, KeyError, AttributeError):
        return {}


def answers(url: str, seconds: float) -> bool:
    """True where a Prefect API's health check answers within the time."""
    host = urllib.parse.urlsplit(url).hostname or ""
    local = host in (*LOCAL_HOSTS, "::1")
    handlers = [urllib.request.ProxyHandler({})] if local else []  # as in `configure`
    try:
        with urllib.request.build_opener(*handlers).open(f"{url.rstrip('/')}/health", timeout=seconds) as answer:
            return bool(answer.read(16).strip() == b"true")
    except (OSError, ValueError, urllib.error.URLError):
        return False
