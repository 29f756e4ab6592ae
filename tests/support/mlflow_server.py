"""A server that takes what MLflow's client sends: the calls of its REST interface that make a run."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Server:
    """What a server was sent: the JSON of each call by its name, and the files. fails: the call that it refuses."""

    url: str = ""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    fails: str = ""

    def sent(self, call: str) -> list[dict[str, Any]]:
        return [body for name, body in self.calls if name == call]


INFO = {
    "run_id": "r1", "run_uuid": "r1", "run_name": "x", "experiment_id": "7", "status": "RUNNING", "start_time": 1,
    "lifecycle_stage": "active", "artifact_uri": "mlflow-artifacts:/7/r1/artifacts",
}  # fmt: skip
ANSWERS: dict[str, dict[str, Any]] = {
    "experiments/get-by-name": {"experiment": {"experiment_id": "7", "name": "tl", "lifecycle_stage": "active"}},
    "runs/create": {"run": {"info": INFO, "data": {}}},
    "runs/get": {"run": {"info": INFO, "data": {}}},
    "runs/update": {"run_info": INFO},
    "runs/log-batch": {},
}


@contextmanager
def serving() -> Iterator[Server]:
    """A server that is there until the end of the block."""
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        do_POST = do_PUT = do_GET  # noqa: N815 - http.server's names

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            call = self.path.partition("?")[0].removeprefix("/api/2.0/").removeprefix("mlflow/")
            if call == told.fails:
                return self._send(400, {"error_code": "INVALID_STATE", "message": "the database is full"})
            if self.command == "PUT":
                told.files[call.rpartition("/")[2]] = body
                return self._send(200, {})
            told.calls.append((call, json.loads(body or "{}")))
            self._send(200 if call in ANSWERS else 404, ANSWERS.get(call, {}))

        def _send(self, code: int, value: dict[str, Any]) -> None:
            data = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Nothing: a test's output is its own."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        told.url = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield told
        listening.shutdown()
        thread.join()
