"""Retrains by the clock and on new data, from one process that stays."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_core.errors import UserError
from tl_flows import prefect_env
from tl_flows.prefect_env import LOGGER
from tl_flows.retraining.attempt import Attempt
from tl_flows.retraining.signals import end_by_signals
from tl_flows.temporary_server import LocalServer

log = logging.getLogger(LOGGER)

FLOW = "tl-retrain"


@dataclass(frozen=True)
class Schedule:
    """When a project is retrained, and on what.

    cron: five fields in `timezone`, None for no clock; watch_minutes: how often its data are looked at, None for never;
    parameters: of the flow.
    """

    project: Path
    cron: str | None
    timezone: str
    watch_minutes: float | None
    parameters: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the deployment: `tl-retrain/NAME` for `prefect deployment run`."""
        return self.project.name


def fingerprint(source: Path) -> str:
    """Changes with every file that comes, goes, or changes its size or time below a folder (or of one file)."""
    total = hashlib.sha256()
    paths = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            continue  # gone since it was listed: the next look sees it
        total.update(f"{path.relative_to(source).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return total.hexdigest()


class Watch:
    """Calls `start` once for each change of a source that has come to rest: two looks in a row find the same."""

    def __init__(self, source: Path, start: Callable[[str], None]) -> None:
        self.source = source
        self.start = start
        self.told = fingerprint(source)
        self.seen = self.told

    def look(self) -> bool:
        """Look once; True where it called."""
        found, before = fingerprint(self.source), self.seen
        self.seen = found
        if found == self.told or found != before:
            return False
        self.start(found)
        self.told = found
        return True

    def stay(self, seconds: float, stop: threading.Event) -> None:
        """Look every so many seconds until told to stop; a look that fails is logged, and made again."""
        while not stop.wait(seconds):
            try:
                self.look()
            except Exception as error:  # a server or a disk that is away for a moment ends no watch
                log.warning("the data can't be looked at or the retrain not started: %s", error)


def serve(schedule: Schedule, source: Path, home: Path) -> None:
    """Stay and start retrains until SIGTERM or SIGINT; each runs in a process of its own, one at a time.

    source: the data that are watched; home: Prefect's folder for a server, which is started where none runs and ends
    with this process. Raises UserError on a cron text or time zone that can't be used.
    """
    end_by_signals()
    server = prefect_env.find_server()
    prefect_env.configure(home, server.settings)
    if server.temporary:
        started = LocalServer(home, port=prefect_env.LOCAL_PORT)
        os.environ["PREFECT_API_URL"] = started.url
        started.wait()
        log.info("Prefect's server and its pages: %s (its data lie in %s)", started.url.removesuffix("/api"), home)
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.deployments.runner import EntrypointType

    from tl_flows.retraining.flow import retrain
    from tl_flows.retraining.flow_runs import close_dead
    from tl_flows.retraining.runner import stay

    close_dead(schedule.project)
    try:
        by_clock = CronSchedule(cron=schedule.cron, timezone=schedule.timezone) if schedule.cron else None
    except ValueError as error:
        raise UserError(
            f"no schedule: cron {schedule.cron!r} in time zone {schedule.timezone!r} ({_first(error)}); such as "
            '--cron "0 3 * * *" --timezone Europe/Berlin'
        ) from error
    deployment = retrain.to_deployment(
        schedule.name,
        schedule=by_clock,
        parameters=schedule.parameters,
        description=f"Retrain {schedule.project} and promote what is better",
        tags=["tl"],
        # one that comes due while another runs is dropped: after a stretch without a server they would pile up
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    stop = threading.Event()
    if schedule.watch_minutes is not None:
        watch = watch_of(schedule, source)
        seconds = schedule.watch_minutes * 60
        threading.Thread(target=watch.stay, args=(seconds, stop), name="data-watch", daemon=True).start()
    try:
        stay(deployment)
    finally:
        stop.set()


def watch_of(schedule: Schedule, source: Path) -> Watch:
    """The watch of a project's data; what the last retrain left undone is done at the first look."""
    watch = Watch(source, lambda _: _start(schedule.name))
    last = Attempt.last(schedule.project)
    if last is not None and last.state in ("", "failed"):
        watch.told = ""
    return watch


def _start(name: str) -> None:
    from prefect.deployments import run_deployment

    # no idempotency key: data that are put back as they once were have the same fingerprint, and are new data
    run_deployment(f"{FLOW}/{name}", timeout=0, as_subflow=False)
    log.info("the data have changed: a retrain was started")


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line.startswith("Value error")), lines[0] if lines else "")
