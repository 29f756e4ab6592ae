"""A server that takes what MLflow's client sends: the calls of its REST interface that make a run or a version."""

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
    versions: list[dict[str, Any]] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)

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
    "runs/search": {"runs": [{"info": INFO, "data": {}}]},
}


def registry_answer(told: Server, call: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """What a call to the model registry gives; None where there is no such thing."""
    if call == "registered-models/get":
        aliases = [{"alias": alias, "version": version} for alias, version in told.aliases.items()]
        made = told.sent("registered-models/create")
        return {"registered_model": {**made[0], "aliases": aliases}} if made else None
    if call == "registered-models/create":
        return {"registered_model": body}
    if call == "registered-models/alias":
        told.aliases[body["alias"]] = body["version"]
        return {}
    if call == "model-versions/search":
        return {"model_versions": told.versions}
    if call == "model-versions/create":
        told.versions.append({**body, "version": str(len(told.versions) + 1), "status": "READY"})
        return {"model_version": told.versions[-1]}
    return ANSWERS.get(call)


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
            answer = registry_answer(told, call, told.calls[-1][1])
            missing = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": call}
            self._send(200 if answer is not None else 404, missing if answer is None else answer)

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
