"""Prefect's runner for one deployment, which the first SIGTERM or SIGINT ends, also while it starts."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from typing import Any

from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner

from tl_flows.retraining.signals import ENDING

AGAIN_SECONDS = 0.5


def stay(deployment: RunnerDeployment) -> None:
    """Start the deployment's runs as they come due, one at a time, until a signal; a run under way is ended then."""
    runner = Runner(limit=1, pause_on_shutdown=False)
    runner.add_deployment(deployment)
    early: list[Any] = []
    _on_signals(early.append)  # an exception would tear up the event loop that is being made
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_stay(runner, early))


async def _stay(runner: Runner, early: list[Any]) -> None:
    loop, work = asyncio.get_running_loop(), asyncio.current_task()
    assert work is not None

    begun = False

    def end() -> None:
        nonlocal begun
        if begun:  # a second signal must not break off the ending of the run under way
            return
        begun = runner.started
        work.cancel()
        if not begun:  # what connects to the server then may take it for a fault, and try again
            loop.call_later(AGAIN_SECONDS, end)

    def told(*_: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended already
            loop.call_soon_threadsafe(end)

    _on_signals(told)
    runner.handle_sigterm = told  # the runner sets it when it starts; its own is of no use before it has started
    if not early:
        await runner.start()


def _on_signals(call: Callable[..., object]) -> None:
    for one in ENDING:
        signal.signal(one, lambda *_: call(_))
