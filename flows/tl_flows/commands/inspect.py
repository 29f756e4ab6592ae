"""Commands that only look: plugins."""

from __future__ import annotations

import click

from tl_flows.commands.tables import print_table


@click.command()
def plugins() -> None:
    """List the installed plugins, and what is wrong with one that does not load."""
    from tl_core.registry import load_registry

    found = load_registry().plugins
    print_table(("plugin", "dist", "version", "error"), [(p.name, p.dist, p.version, p.error or "") for p in found])
    if not found:
        click.echo("no plugins; install one, such as tl-text")
