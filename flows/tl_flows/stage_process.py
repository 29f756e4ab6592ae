"""Running DVC in a process group of its own that never outlives the run that started it."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tl_core.errors import UserError

OWNER = "TL_OWNER_PID"
FAULT = "tl: "  # how the command prefixes what it tells the user
NOTE = "tl> "  # what a stage says while it works, to be shown at once

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_BREAKS = re.compile(r"(\r\n|\n|\r)")
_STAGE_EXIT = re.compile(r"exited with (-?\d+)")
_POLL_SECONDS = 0.2


class StageError(Exception):
    """A stage that failed for no fault of the user. may_pass: another try may end well."""

    def __init__(self, text: str, *, may_pass: bool = False) -> None:
        super().__init__(text)
        self.may_pass = may_pass


def run_dvc(
    root: Path,
    arguments: Sequence[str],
    on_line: Callable[[str], None],
    deadline_s: float,
    variables: Mapping[str, str] | None = None,
) -> None:
    """Run one DVC command in `root`, giving its lines to `on_line` as they come.

    variables: of the environment, beside those of this process.
    The command and all that it started are dead when this returns or raises. Raises UserError with the stage's
    own words where the stage refused its input (exit code 2), StageError past the deadline and on any other failure.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    lines: list[str] = []
    with _process_group(command, root, variables or {}) as (process, output):
        end = time.monotonic() + deadline_s
        for line in _lines(process, output, end):
            lines.append(line)
            on_line(line)
        if process.poll() is None:
            raise StageError(f"`dvc {' '.join(arguments)}` passed its deadline of {deadline_s:.0f} s and was ended")
    if process.returncode != 0:
        raise _failure(arguments, process.returncode, lines)


def end_with_owner() -> None:
    """Watch the run that started this stage, if any, and end this process group as soon as it is gone.

    DVC ignores the death of its parent, so without this a stage would run on beside its own rerun.
    """
    owner = os.environ.get(OWNER)
    if owner:
        threading.Thread(target=_watch, args=(int(owner),), name="owner-watch", daemon=True).start()


def _watch(pid: int) -> None:
    if hasattr(os, "pidfd_open"):
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            select.select([descriptor], [], [])
    else:
        with suppress(ProcessLookupError):
            while True:
                os.kill(pid, 0)
                time.sleep(1)
    os.killpg(0, signal.SIGKILL)


@contextmanager
def _process_group(
    command: Sequence[str], root: Path, variables: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    # a pseudo-terminal keeps the stage's progress bars alive where the user has a terminal
    reader, writer = _terminal() if sys.stderr.isatty() else os.pipe()
    environment = {
        **os.environ,
        **variables,
        OWNER: str(os.getpid()),
        "DVC_NO_ANALYTICS": "1",
        # stages call `tl`: the one beside this interpreter, also where its environment is not activated
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }
    try:
        process = subprocess.Popen(
            command,
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            start_new_session=True,
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    try:
        yield process, reader
    finally:
        with suppress(ProcessLookupError, PermissionError):  # nothing left to end, as Linux and macOS put it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(reader)


def _terminal() -> tuple[int, int]:
    reader, writer = pty.openpty()
    with suppress(OSError):
        size = fcntl.ioctl(sys.stderr.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(writer, termios.TIOCSWINSZ, size)
    return reader, writer


def _lines(process: subprocess.Popen[bytes], output: int, end: float) -> Iterator[str]:
    """Whole lines without colours; bars (text that a carriage return overwrites) go straight to the terminal."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest = ""
    while time.monotonic() < end:
        ready, _, _ = select.select([output], [], [], _POLL_SECONDS)
        if not ready:
            if process.poll() is not None:
                break  # a grandchild may hold the pipe open: what the stage wrote has been read
            continue
        chunk = _read(output)
        if not chunk:
            break
        *pieces, rest = _BREAKS.split(rest + decoder.decode(chunk))
        if pieces and pieces[-1] == "\r" and not rest:
            rest = "".join(pieces[-2:])  # the other half of "\r\n" may still come
            pieces = pieces[:-2]
        for text, separator in zip(pieces[::2], pieces[1::2]):
            if separator == "\r":
                _show_bar(text)
            elif line := _COLOURS.sub("", text).rstrip():
                _show_bar("")
                yield line
    if line := _COLOURS.sub("", rest).strip():
        yield line
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=max(0.0, end - time.monotonic()))


def _read(output: int) -> bytes:
    try:
        return os.read(output, 65536)
    except OSError:  # how Linux says that the other side of a pseudo-terminal is closed
        return b""


def _show_bar(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _failure(arguments: Sequence[str], code: int, lines: Sequence[str]) -> Exception:
    stage_codes = [int(found.group(1)) for line in lines if (found := _STAGE_EXIT.search(line))]
    faults = [line.removeprefix(FAULT) for line in lines if line.startswith(FAULT)]
    if 2 in stage_codes and faults:
        return UserError("\n".join(faults))
    errors = [line.removeprefix(FAULT) for line in lines if line.startswith(("ERROR", FAULT))] or list(lines[-5:])
    killed = code < 0 or any(c < 0 or c == 137 for c in stage_codes)
    return StageError(f"`dvc {' '.join(arguments)}` failed (exit code {code}): " + "\n".join(errors), may_pass=killed)
