"""Calling the flow: one Prefect server for all calls of a command, found or started once."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_core.workspace import STEPS
from tl_flows import prefect_env
from tl_flows.temporary_server import LocalServer

if TYPE_CHECKING:
    from tl_flows.engine import StepResult
    from tl_flows.retraining.outcome import Outcome


class FlowSession:
    """The server that flow runs report to: one that is running, or a temporary one from the first call on.

    home: Prefect's folder for a temporary server. Raises UserError where PREFECT_API_URL names a server that does not
    answer.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._server = prefect_env.find_server()
        self._called = False
        self._fault: Exception | None = None

    @property
    def temporary(self) -> bool:
        """True where a flow run would need a server of this command's own."""
        return self._server.temporary

    def call(self, folder: Path, config: dict[str, Any] | None = None) -> Mapping[str, StepResult]:
        """Run the pipeline; whatever takes seconds to load does so while a temporary server starts.

        Raises StageError or UserError where that server does not start, at once in later calls.
        """
        with self._serving():
            from tl_flows.flow import pipeline

            if config is not None and not self._called:
                threading.Thread(target=_import_ahead, name="import-ahead").start()
        self._called = True
        steps: Mapping[str, StepResult] = pipeline(str(folder), config)
        return steps

    def retrain(
        self, folder: Path, data: str | None, revision: str | None, step_hours: float, wait_minutes: float
    ) -> Outcome:
        """Retrain a project. Raises as `call` does."""
        with self._serving():
            from tl_flows.retraining.flow import retrain
        self._called = True
        outcome: Outcome = retrain(str(folder), data, revision, step_hours, wait_minutes)
        return outcome

    @contextlib.contextmanager
    def _serving(self) -> Iterator[None]:
        """Find or start the server; the block imports what the flow needs while a temporary one starts."""
        if self._fault is not None:
            raise self._fault
        started = None
        if not self._called and "prefect" not in sys.modules:  # else its settings are the caller's, who imported it
            prefect_env.configure(self._home, self._server.settings)
            if self.temporary:
                started = LocalServer(self._home)
                os.environ["PREFECT_API_URL"] = started.url
        yield
        if started is not None:
            try:
                started.wait()
            except Exception as error:
                self._fault = error
                raise


def _import_ahead() -> None:
    with contextlib.suppress(Exception):  # the step that needs it reports it
        steps = importlib.import_module("tl_core.steps")
        for step in STEPS:
            getattr(steps, step)
        importlib.import_module("tl_core.registry").load_registry()
