"""Telling the watchers what the model registry holds, so that those that mirror it keep up with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from tl_core.config import load_config
from tl_core.plugins import WATCHERS, installed_plugins
from tl_flows.model_registry import ModelRegistry
from tl_flows.project import PARAMS, main_worktree
from tl_flows.registry_json import registry_json

HOOK = "tl_registry_changed"
LOCK = "tl-mirror.lock"
LOCK_SECONDS = 120.0  # MLflow is given a minute to answer, and another for a version
_STILL_TOLD = (
    f"no watcher was told what is registered: another process has been telling them for {LOCK_SECONDS:.0f} s; "
    "`tl registry mirror` tells them"
)


@dataclass(frozen=True)
class Told:
    """What became of telling the watchers.

    watchers: names of the plugins that were told; said: a line of each that did something with it; failures: a line of
    each that failed, or why none was told.
    """

    watchers: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


def tell_registry(project: Path) -> Told:
    """Tell the watchers what a project's registry holds. What fails is said in the answer and never raised.

    Whoever calls has changed the registry already, and that stands.
    """
    try:
        plugins = installed_plugins([WATCHERS])
        names = plugins.implementing(HOOK)
        if not names:
            return Told()
        main = main_worktree(project)
        named = load_config(main / PARAMS).registry.name
        held = ModelRegistry.open(main)
        with FileLock(held.common / LOCK, timeout=LOCK_SECONDS):  # what is older must not be told last
            answers = plugins.tell(HOOK, registry=registry_json(held, named or main.name), project=main)
    except Timeout:
        return Told(failures=(_STILL_TOLD,))
    except Exception as error:
        return Told(failures=(f"no watcher was told what is registered: {error}",))
    return Told(tuple(names), tuple(line for line in answers.said.values() if line), tuple(answers.failures))
