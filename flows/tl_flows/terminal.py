"""What a run says while it works, line by line on standard error."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import textwrap
from contextlib import suppress

from tl_flows.prefect_env import LOGGER, LOGGERS, STAGE_LOGGER
from tl_flows.stage_process import NOTE, OWNER

COLUMN = 10  # where a line's text begins, after the word that it is about


def log_to_terminal() -> None:
    """Show the lines of tl's loggers; a stage's other output stays in the run's history.

    A stage that a run has started marks its lines, so that the run shows them at once as its own.
    """
    handler = _Lines()
    handler.setFormatter(_Columns(f"{NOTE if OWNER in os.environ else ''}%(message)s"))
    handler.addFilter(lambda record: record.name != STAGE_LOGGER)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


class _Lines(logging.Handler):
    """Writes above a progress bar, where one is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        text, bars = _folded(self.format(record)), sys.modules.get("tqdm")
        with suppress(OSError):  # nobody reads any more: `tl run 2>&1 | head`
            if bars is None:
                print(text, file=sys.stderr, flush=True)
            else:
                bars.tqdm.write(text, file=sys.stderr)


def _folded(text: str) -> str:
    """Each line folded between words to a terminal's width, under its text; as it is in a file, for grep."""
    if not sys.stderr.isatty():
        return text
    fold = textwrap.TextWrapper(
        max(40, shutil.get_terminal_size().columns - 1),
        subsequent_indent=" " * COLUMN,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
    return "\n".join(fold.fill(line) for line in text.splitlines())


class _Columns(logging.Formatter):
    """The library's lines, `extract NAME: ...`, in the columns of a run's own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        if record.name != LOGGER:
            verb, _, rest = record.message.partition(" ")
            record.message = f"{verb:<{COLUMN - 2}}  {rest}"
        return super().formatMessage(record)
