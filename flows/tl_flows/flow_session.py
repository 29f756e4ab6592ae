"""Calling the flow: one Prefect server for all calls of a command, found or started once."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_flows import prefect_env
from tl_flows.temporary_server import TemporaryServer

if TYPE_CHECKING:
    from tl_flows.engine import StepResult


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
        """Run the flow; whatever takes seconds to load does so while a temporary server starts.

        Raises StageError or UserError where that server does not start, at once in later calls.
        """
        if self._fault is not None:
            raise self._fault
        started = None
        if not self._called and "prefect" not in sys.modules:  # else its settings are the caller's, who imported it
            prefect_env.configure(self._home, self._server.settings)
            if self.temporary:
                started = TemporaryServer(self._home)
                os.environ["PREFECT_API_URL"] = started.url
        from tl_flows.flow import pipeline

        if config is not None and not self._called:
            threading.Thread(target=_import_ahead, name="import-ahead").start()
        self._called = True
        if started is not None:
            try:
                started.wait()
            except Exception as error:
                self._fault = error
                raise
        steps: Mapping[str, StepResult] = pipeline(str(folder), config)
        return steps


def _import_ahead() -> None:
    with contextlib.suppress(Exception):  # the step that needs it reports it
        importlib.import_module("tl_core.steps")
        importlib.import_module("tl_core.registry").load_registry()
