"""The `tl` command: its groups and how faults are told. Heavy imports wait until a command runs."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
from collections.abc import Sequence

import click
import platformdirs

from tl_flows import faults, terminal

INTERRUPTED = 130
SPINS = "1000"  # how often a waiting thread looks before it sleeps: for microseconds, by default for milliseconds

_COMMANDS = {
    "init": "tl_flows.commands.init",
    "run": "tl_flows.commands.run",
    "retrain": "tl_flows.commands.retrain",
    "schedule": "tl_flows.commands.schedule",
    "reproduce": "tl_flows.commands.reproduce",
    "verify": "tl_flows.commands.verify",
    "version": "tl_flows.commands.steps",
    "select": "tl_flows.commands.steps",
    "extract": "tl_flows.commands.steps",
    "tune": "tl_flows.commands.steps",
    "evaluate": "tl_flows.commands.steps",
    "predict": "tl_flows.commands.predict",
    "explain": "tl_flows.commands.explain",
    "monitor": "tl_flows.commands.monitor",
    "report": "tl_flows.commands.report",
    "compare": "tl_flows.commands.compare",
    "registry": "tl_flows.commands.registry",
    "bundle-offline": "tl_flows.commands.offline",
    "restore-offline": "tl_flows.commands.offline",
    "backbones": "tl_flows.commands.backbones",
    "plugins": "tl_flows.commands.inspect",
    "cache": "tl_flows.commands.cache",
}


class Commands(click.Group):
    """Commands in the order in which a user meets them, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[name]), name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from tl_core.errors import did_you_mean

        if args and not args[0].startswith("-") and args[0] not in _COMMANDS:
            hint = did_you_mean(args[0], _COMMANDS) or "; `tl --help` lists all"
            raise click.UsageError(f"no command '{args[0]}'{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an unexpected error.")
@click.version_option(package_name="tl-flows", prog_name="tl")
@click.pass_context
def tl(context: click.Context, debug: bool) -> None:
    """Transfer learning from cached features: your images, texts or sounds in, a model and a report out.

    \b
    tl run --data FOLDER      in any folder, results under tl-run/
    tl run                    in a DVC project, the stages that are stale
    tl run PROJECT PROJECT    the same for several, with one page over all
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 2 for a fault of the input, 130 after Ctrl-C, 1 for a fault of tl."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    # the interpreter's last search for garbage, over all that torch and its company keep, would take up to a second
    atexit.register(gc.freeze)
    terminal.log_to_terminal()
    if "OMP_WAIT_POLICY" not in os.environ:
        # threads of torch that wait for each other keep their cores busy: beside other work that makes all of it slow
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    # a library that draws nothing here still makes matplotlib's folders: in tl's cache, not in the user's home
    os.environ.setdefault("MPLCONFIGDIR", str(platformdirs.user_cache_path("tl") / "matplotlib"))
    try:
        code = tl.main(given, prog_name="tl", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("\ntl: stopped; features and finished steps are kept, the same command goes on from them", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        return faults.FAILED
    except Exception as error:
        return faults.tell(error, debug="--debug" in given)
