"""What the processes that talk to MLflow have in common: limits of time, and lines of JSON for who started them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping

DATABASE_SECONDS = 60  # a database may have to be made first
SENDING_SECONDS = 60  # all that is sent once MLflow has answered; a report has 5 MB at most


def run(work: Callable[[], None]) -> int:
    """Do the work and return the exit code; its error is said."""
    try:
        work()
    except Exception as error:  # whatever it is, one line tells the user more than mlflow's traceback
        say(error=_cause(error))
        return 1
    return 0


def contact_seconds(environment: Mapping[str, str]) -> int:
    """What the first answer may take: that of a server what one request may, a database more."""
    if not environment["MLFLOW_TRACKING_URI"].startswith(("http", "databricks")):
        return DATABASE_SECONDS
    tries = int(environment["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) + 1
    return tries * (int(environment["MLFLOW_HTTP_REQUEST_TIMEOUT"]) + 1)


def limit(seconds: int) -> None:
    """End this process by SIGALRM so many seconds from now, instead of what was said before."""
    signal.alarm(seconds)  # not caught: it ends the process even where it waits inside the system


def say(**facts: str) -> None:
    """Tell who started this process; of two facts of a name the last one counts."""
    print(json.dumps(facts), flush=True)


def _cause(error: BaseException) -> str:
    """The system's own words where they are behind an error, else the error's first line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.__context__ is None:
            return cause.strerror or str(cause)
        cause = cause.__cause__ or cause.__context__
    return (str(error).splitlines() or [type(error).__name__])[0]
