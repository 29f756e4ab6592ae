"""A Prefect server for one command, where none is running. Unlike Prefect's own it never outlives a killed one."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tl_core.errors import UserError
from tl_flows.prefect_env import LOGGER, answers
from tl_flows.project import full_disk
from tl_flows.stage_process import OWNER, StageError, end_with_owner

log = logging.getLogger(LOGGER)

LOG = "temporary-server.log"
START_SECONDS = 90.0  # a new database takes most of it on a busy machine
STOP_SECONDS = 5.0
RESTARTS = 10  # of a server that was ended from outside; one that ends so often will not stay
RESTART_PAUSE = 1.0

# a server that lives for one run has no one to serve pages to and nothing to schedule
_LEAN = {
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
}
# a server that stays: what runs hold outlives it, or the place of a run that was killed with it is never free again
_LASTING = {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"}


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
        settings = {**os.environ, **_LEAN} if port is None else {**_LASTING, **os.environ}
        self._environment = {**settings, OWNER: str(os.getpid())}
        self._port = port or _free_port()
        self._stopped = threading.Event()
        self._restarts = RESTARTS
        self.url = f"http://127.0.0.1:{self._port}/api"
        self.log = home / LOG
        self.log.write_bytes(b"")
        self.process = self._start()
        atexit.register(self.stop)

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "tl_flows.temporary_server", str(self._port)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the run, which still has states to report
            )

    def _keep(self) -> None:
        """Start the server again whenever it is ended from outside: its client goes on asking at the same address."""
        self.process.wait()
        while not self._stopped.wait(RESTART_PAUSE) and self._restart():
            self.process.wait()

    def _restart(self) -> bool:
        """Start the server, which was ended from outside, again; False where that has happened too often."""
        if not self._restarts or self._stopped.is_set():
            return False
        self._restarts -= 1
        log.warning("Prefect's server was ended from outside; it is started again")
        self.process = self._start()
        return True

    def wait(self) -> None:
        """Wait until the server answers. Then, as before, it is started again where it is ended from outside.

        Raises StageError, naming its log, where it ends or takes too long, and UserError where its disk is full.
        """
        try:
            self._wait()
        finally:
            self._starting.release()
        threading.Thread(target=self._keep, name="server-watch", daemon=True).start()

    def _wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while not answers(self.url, 1.0):
            code = self.process.poll()
            if code is not None and code < 0 and self._restart():
                end = time.monotonic() + START_SECONDS
            elif code is not None or time.monotonic() > end:
                if full := full_disk(self.log.parent):
                    raise UserError(
                        f"{full}, and Prefect keeps runs there; free some space; outside of a project XDG_CACHE_HOME "
                        "can name another disk"
                    )
                raise StageError(f"Prefect's server did not start; its log: {self.log}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Let the server finish what it is recording, then end it."""
        self._starting.release()
        self._stopped.set()
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
