"""How a failed command is told: in lines that name the remedy, never as a traceback unless asked for."""

from __future__ import annotations

import contextlib
import errno
import traceback
from pathlib import Path

import click

FAILED = 1
USER_FAULT = 2

_ROOM = (
    "free some space, or choose other folders with --out and XDG_CACHE_HOME; finished steps are kept, the same command "
    "goes on from them"
)


def tell(error: Exception, *, debug: bool, where: str = "") -> int:
    """Print the error's lines on standard error and return the exit code: 2 for a fault of the input, else 1.

    where: put before each line, the project of several that failed.
    """
    from tl_core.errors import UserError
    from tl_flows.stage_process import StageError

    code, lines = FAILED, str(error).splitlines()
    if isinstance(error, UserError):
        code = USER_FAULT
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        code, lines = USER_FAULT, [f"the disk{f' of {error.filename}' if error.filename else ''} is full; {_ROOM}"]
    elif not isinstance(error, StageError):  # a stage has told its own fault
        if debug:
            traceback.print_exception(error)
            return FAILED
        full = _full_disk()  # where it shows as whatever could not write: a server's error 500, say
        code, lines = (USER_FAULT, [f"{full}; {_ROOM}"]) if full else (FAILED, [_unexpected(error)])
    for line in lines:
        click.echo(f"tl: {where}{line}", err=True)
    return code


def _full_disk() -> str | None:
    from tl_flows.project import cache_folder, full_disk

    with contextlib.suppress(Exception):  # telling about a fault must not be a fault itself
        return full_disk(Path.cwd(), cache_folder())
    return None


def _unexpected(error: Exception) -> str:
    from tl_flows.project import cache_folder

    what = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    try:
        log: Path = cache_folder() / "last-error.txt"
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        where = f"the traceback lies in {log}"
    except Exception:  # telling about a fault must not be a fault itself
        where = "`tl --debug ...` shows the traceback"
    return f"unexpected {what}; {where}"
