"""What is known of the last retrain of a project: whether it ended, how, and where the next one goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from tl_core.errors import UserError
from tl_core.workspace import write_json

FOLDER = Path(".tl", "retrain")
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Attempt:
    """A retrain, written at its start and at its end; a killed one stays without an end.

    base: the commit whose code and parameters it uses; prepared: its worktree is set up, so that a run after a kill
    goes on there; state: how it ended, empty while it runs; untold: the `why` of this attempt and of earlier ones that
    were killed or failed, as long as no run has told what became of their versions.
    """

    base: str
    started: float
    pid: int
    host: str
    prepared: bool = False
    state: str = ""
    untold: tuple[str, ...] = ()

    @classmethod
    def begin(cls, base: str, now: float, untold: tuple[str, ...] = ()) -> Attempt:
        new = cls(base, round(now, 3), os.getpid(), socket.gethostname())
        return new.but(untold=(*untold, new.why))

    @property
    def why(self) -> str:
        """What its version in the registry says of its origin: no two attempts say the same."""
        when = datetime.fromtimestamp(self.started, UTC).isoformat(sep=" ", timespec="milliseconds")
        return f"retrain of {when}, process {self.pid} on {self.host}"

    @classmethod
    def last(cls, main: Path) -> Attempt | None:
        """The last attempt of the project; None where there was none, or its record can't be read."""
        try:
            facts = json.loads((main / FOLDER / "attempt.json").read_text(encoding="utf-8"))
            if facts.pop("format") != FORMAT_VERSION:
                return None
            untold = facts.pop("untold", None)
            last = cls(**facts)
            return last.but(untold=(last.why,) if untold is None else tuple(untold))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # it only saves work: without it the attempt begins anew, and ends the same

    def keep(self, main: Path) -> Attempt:
        write_json(main / FOLDER / "attempt.json", {"format": FORMAT_VERSION, **dataclasses.asdict(self)})
        return self

    def but(self, **changes: object) -> Attempt:
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


@contextmanager
def sole_retrain(main: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the project for one retrain; a lock whose holder is dead is free.

    wait_s: how long to stand in the queue. Raises UserError, naming the holder, where another one still runs then.
    """
    folder = main / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire(timeout=wait_s)
    except Timeout as error:
        holder = Attempt.last(main)
        named = f" (process {holder.pid} on {holder.host})" if holder and not holder.state else ""
        raise UserError(
            f"another retrain of {main} runs{named}; wait until it ends, or queue this one with --wait MINUTES"
        ) from error
    except OSError as error:
        raise UserError(f"can't write to {folder}: {error.strerror}; free some space or mend its rights") from error
    try:
        yield
    finally:
        lock.release()
