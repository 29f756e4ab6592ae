"""A Prefect server for one command, where none is running. Unlike Prefect's own it never outlives a killed one."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tl_core.errors import UserError
from tl_flows.prefect_env import answers
from tl_flows.stage_process import OWNER, StageError, end_with_owner

LOG = "temporary-server.log"
START_SECONDS = 90.0  # a new database takes most of it on a busy machine
STOP_SECONDS = 5.0
DATABASE_BYTES = 8_000_000  # a new database and its journal; with less free, that is why a server did not start

# a server that lives for one run has no one to serve pages to and nothing to schedule
_LEAN = {
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
}


class LocalServer:
    """A server process on this machine alone; ends with the interpreter, after Prefect's own last words.

    port: None for a free one, and a server without pages and schedules, for one run.
    """

    def __init__(self, home: Path, port: int | None = None) -> None:
        home.mkdir(parents=True, exist_ok=True)
        # of two runs that start at once, the second waits: both servers would make the same tables of a new database
        self._starting = FileLock(home / "starting.lock")
        with suppress(Timeout):
            self._starting.acquire(timeout=START_SECONDS)
        lean = _LEAN if port is None else {}
        port = port or _free_port()
        self.url = f"http://127.0.0.1:{port}/api"
        self.log = home / LOG
        environment = {**os.environ, OWNER: str(os.getpid()), **lean}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tl_flows.temporary_server", str(port)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the run, which still has states to report
            )
        atexit.register(self.stop)

    def wait(self) -> None:
        """Wait until the server answers.

        Raises StageError, naming its log, where it ends or takes too long, and UserError where its disk is full.
        """
        try:
            self._wait()
        finally:
            self._starting.release()

    def _wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while not answers(self.url, 1.0):
            if self.process.poll() is not None or time.monotonic() > end:
                free = shutil.disk_usage(self.log.parent).free
                if free < DATABASE_BYTES:
                    raise UserError(
                        f"the disk of {self.log.parent}, where Prefect keeps runs, is full ({free / 1e6:.1f} MB free); "
                        "free some space there; outside of a project XDG_CACHE_HOME can name another disk"
                    )
                raise StageError(f"Prefect's server did not start; its log: {self.log}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Let the server finish what it is recording, then end it."""
        self._starting.release()
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main(port: int) -> None:
    """Serve Prefect's API in this process until the command that it is for is gone."""
    end_with_owner()
    import uvicorn
    from prefect.server.api.server import create_app

    uvicorn.run(create_app(final=True), host="127.0.0.1", port=port, log_level="error")


if __name__ == "__main__":
    main(int(sys.argv[1]))
