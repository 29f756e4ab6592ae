"""`tl registry`: the versions of a project's model, which one serves, and making another one serve."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tl_flows.commands.tables import draw_texts

if TYPE_CHECKING:
    from tl_core.report.difference import Difference
    from tl_flows.model_registry import ModelRegistry
    from tl_flows.registry_state import Event, Version

SHORT = 8  # digits of a digest that tables show
FILES = 10  # changed files listed
EVENTS = ("when", "version", "what", "instead of", "by", "why")

_json = click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
_why = click.option("--why", required=True, metavar="TEXT", help="The reason, for those who ask later.")


@click.group()
def registry() -> None:
    """The versions of the project's model: which one serves, since when and why. They are git tags that GTO reads.

    A version is named v3 or 3, or by its alias: champion is the model that serves, challenger the one registered last.
    """


@registry.command("list")
@_json
def list_(as_json: bool) -> None:
    """The versions of the model here, the newest first."""
    from tl_flows.registry_json import version_json

    state = _opened().state()
    if as_json:
        _print_json([version_json(version, state) for version in reversed(state.versions)])
    elif not state.versions:
        click.echo("no model is registered here; `tl registry register` registers that of the last commit")
    else:
        rows = [
            (
                version.name, _day(version.time), ", ".join(state.aliases(version)), _short_data(version),
                version.facts.metric.describe() if version.facts else "", _decision(version),
            )
            for version in reversed(state.versions)
        ]  # fmt: skip
        draw_texts(("version", "registered", "alias", "data", "result", "decision"), rows)


@registry.command()
@click.argument("version")
@_json
def show(version: str, as_json: bool) -> None:
    """All that is known of VERSION, and what became of it."""
    from tl_flows.registry_json import version_json

    opened = _opened()
    state = opened.state()
    found = state.version(version)
    if as_json:
        _print_json(version_json(found, state))
        return
    rows = [
        ("version", found.name), ("alias", ", ".join(state.aliases(found))), ("registered", _day(found.time)),
        ("by", found.by), ("commit", found.commit), ("tag", found.tag), *_facts(found),
    ]  # fmt: skip
    draw_texts(None, [row for row in rows if row[1]])
    events = [event for event in state.history if event.version == found.name]
    if events:
        draw_texts(EVENTS, [_told(event) for event in events])


@registry.command()
@_json
def history(as_json: bool) -> None:
    """Who was champion and challenger when, and why; the newest first."""
    from tl_flows.registry_json import event_json

    events = list(reversed(_opened().state().history))
    if as_json:
        _print_json([event_json(event) for event in events])
    elif not events:
        click.echo("nothing was registered or promoted here yet")
    else:
        draw_texts(EVENTS, [_told(event) for event in events])


@registry.command()
@click.argument("revision", default="HEAD")
@click.option("--why", default="", metavar="TEXT", help="The reason, for those who ask later.")
@_json
def register(revision: str, why: str, as_json: bool) -> None:
    """Make the model of a commit [HEAD] the next version, and the challenger; a commit gives one version.

    The commit's dvc.lock says which model it is, so commit it after `tl run`.
    """
    from tl_flows.registry_json import version_json
    from tl_flows.version_facts import facts_at

    opened = _opened()
    made = opened.register(revision, facts_at(opened.root, revision, why=why))
    if as_json:
        _print_json(version_json(made, opened.state()))
    else:
        click.echo(f"{made.said}; `tl registry push` shares it")
    _mirror(opened)


@registry.command()
@click.argument("version")
@_why
@_json
def promote(version: str, why: str, as_json: bool) -> None:
    """Make VERSION the champion, the model that serves. Of two who do so at once one wins, the other is told."""
    opened = _opened()
    state = opened.state()
    _tell(opened, opened.promote(version, expected_champion=_name(state.champion), why=why), as_json)


@registry.command()
@click.argument("version", required=False)
@_why
@_json
def rollback(version: str | None, why: str, as_json: bool) -> None:
    """Make an earlier champion serve again: VERSION, or the one before this one."""
    opened = _opened()
    state = opened.state()
    _tell(opened, opened.rollback(version, expected_champion=_name(state.champion), why=why), as_json)


@registry.command()
@click.argument("versions", nargs=-1, metavar="[VERSION]...")
@click.option("--remote", metavar="NAME", help="Git's remote [origin, or the only one].")
@_json
def push(versions: tuple[str, ...], remote: str | None, as_json: bool) -> int:
    """Send VERSIONs to others: models and data to DVC's remote, then the tags to git's.

    Without VERSION all that git's remote lacks, and those with an alias. Exit code 1 where one was kept back because
    its files are neither here nor in DVC's remote.
    """
    from tl_flows.sharing import push

    done = push(_opened().root, versions, remote=remote)
    if as_json:
        _print_json(asdict(done))
    else:
        click.echo(done.describe())
    for version, why in done.kept_back.items():
        click.echo(
            f"tl: {version} was kept back, its tags too: {why} of its run is neither in DVC's cache nor in its remote; "
            "push from the machine that trained it",
            err=True,
        )
    return 1 if done.kept_back else 0


@registry.command()
def mirror() -> int:
    """Bring mirrors of the registry, such as MLflow, up to date.

    Each change does so by itself: this is for what was registered before a mirror was set up, or while it was away, and
    for what `git fetch --tags` has brought. Exit code 1 where a mirror could not be told.
    """
    from tl_core.errors import UserError
    from tl_flows.mirrors import tell_registry

    told = tell_registry(_opened().root)
    if not told.watchers and not told.failures:
        raise UserError(
            "no installed plugin mirrors the registry; `pip install ./plugins/mlflow` in tl's repository installs one, "
            "`tl plugins` lists what there is and what is wrong with it"
        )
    for line in told.said:
        click.echo(line)
    for failure in told.failures:
        click.echo(f"tl: {failure}", err=True)
    if told.said or told.failures:
        return 1 if told.failures else 0
    raise UserError(
        f"nothing was sent, {', '.join(told.watchers)} is switched off; MLFLOW_TRACKING_URI switches on that for MLflow"
    )


@registry.command()
@click.argument("first")
@click.argument("second")
@_json
def diff(first: str, second: str, as_json: bool) -> None:
    """What two versions differ in: metrics, data, configuration, code. `tl compare` tests the difference of metrics."""
    from tl_flows.version_diff import version_diff

    opened = _opened()
    state = opened.state()
    found = version_diff(opened.root, state.version(first), state.version(second))
    if as_json:
        _print_json(found.as_json())
        return
    heads = (found.first, found.second)
    draw_texts(("", *heads), [(row.key, row.first, row.second) for row in found.metrics])
    parts: Sequence[tuple[str, Iterable[Difference]]] = (
        ("data", found.data), ("config", found.config), ("made of", found.made_of)
    )  # fmt: skip
    for title, rows in parts:
        for row in rows:
            click.echo(f"{title}: {row.key}: {row.first} -> {row.second}")
    code = ["not known: git lacks a commit, `git fetch --unshallow` gets it"] if found.code is None else found.code
    for file in code[:FILES]:
        click.echo(f"code: {file}")
    if len(code) > FILES:
        click.echo(f"code: and {len(code) - FILES:,} more files")
    if not any((*(rows for _, rows in parts), code)):
        click.echo("the same data, configuration and code")
    click.echo(f"tl compare {found.first} {found.second} tests the difference on the test rows that both have")


def _opened() -> ModelRegistry:
    from tl_flows.model_registry import ModelRegistry
    from tl_flows.project import require_project

    return ModelRegistry.open(require_project(Path.cwd()))


def _name(version: Version | None) -> str | None:
    return version.name if version is not None else None


def _tell(opened: ModelRegistry, event: Event, as_json: bool) -> None:
    """Say who is champion now, and where its model is not at hand."""
    from tl_core.errors import UserError
    from tl_flows.bundles import bundle_at
    from tl_flows.registry_json import event_json

    if as_json:
        _print_json(event_json(event))
    else:
        click.echo(f"{event.version} is the champion" + (f" instead of {event.was}" if event.was else ""))
    try:
        bundle_at(opened.root, opened.state().version(event.version).commit)
    except UserError as error:  # it may well serve on another machine
        click.echo(f"tl: this machine can't serve it yet: {error}", err=True)
    _mirror(opened)


def _mirror(opened: ModelRegistry) -> None:
    """Tell the watchers; what fails there is said, and changes nothing here."""
    from tl_flows.mirrors import tell_registry

    told = tell_registry(opened.root)
    for line in told.said:
        click.echo(line, err=True)
    for failure in told.failures:
        click.echo(f"tl: {failure}", err=True)


def _told(event: Event) -> tuple[str, ...]:
    return _day(event.time), event.version, event.kind, event.was or "", event.by, event.why


def _facts(version: Version) -> list[tuple[str, str]]:
    """What its tag holds, as rows."""
    facts = version.facts
    if facts is None:
        return [("said", version.said)]
    metric = facts.metric
    return [
        ("result", f"{metric.describe()}, {metric.confidence:.0%} interval, {metric.n_test:,} test rows"),
        ("decision", facts.decision), ("why", facts.why), ("data version", facts.data_version),
        ("test set", facts.test_set or ""), ("model", facts.bundle), ("config", facts.config_digest),
        ("code", facts.code_revision),
    ]  # fmt: skip


def _decision(version: Version) -> str:
    return (version.facts.decision or version.facts.why) if version.facts else version.said


def _short_data(version: Version) -> str:
    return version.facts.data_version[:SHORT] if version.facts else ""


def _day(time: int) -> str:
    return datetime.fromtimestamp(time).strftime("%Y-%m-%d %H:%M")


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
