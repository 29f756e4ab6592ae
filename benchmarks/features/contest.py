"""Contenders in processes of their own, measured in turn.

Each contender loads its libraries and warms up once, then waits; a round lets every one work in turn, and each next
round starts with another one, so that drift of the machine falls on all alike. Ratios are taken within a round.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from statistics import median
from types import TracebackType
from typing import Any

from benchmarks.features.setting import cpu_seconds, say

Work = Callable[[], dict[str, Any]]
"""What is timed; returns facts, among them `items`."""

PATIENCE = 900.0  # seconds that one step of a contender may take


@dataclass(frozen=True)
class Entry:
    """A contender that is ready. works: by name, what makes the next round of a work ready (not timed) and returns
    what is timed; facts: what it tells about itself."""

    works: Mapping[str, Callable[[], Work]]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Contender:
    """enter: called in the contender's process with the arguments; works: those that are timed, in order."""

    name: str
    enter: Callable[..., Entry]
    arguments: Mapping[str, Any]
    works: tuple[str, ...] = ("whole",)


class Contest:
    """Running contenders; one that fails is out, with its reason in `absent`, and the others go on."""

    def __init__(self, contenders: Sequence[Contender]) -> None:
        self.facts: dict[str, dict[str, Any]] = {}
        self.absent: dict[str, str] = {}
        self._contenders = {contender.name: contender for contender in contenders}
        self._pipes: dict[str, Connection] = {}
        self._processes: dict[str, Any] = {}

    def __enter__(self) -> Contest:
        context = multiprocessing.get_context("spawn")
        try:
            for name, contender in self._contenders.items():  # one after the other: warming up is work too
                say(f"  {name} warms up")
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, contender.enter, dict(contender.arguments)))
                process.start()
                theirs.close()
                self._pipes[name], self._processes[name] = ours, process
                self.facts[name] = self._answer(name) or {}
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def rounds(self, count: int) -> dict[str, dict[str, Any]]:
        """`count` rounds of every work: by contender and, beyond its first work, `contender/work`."""
        pairs = [(name, work) for name, contender in self._contenders.items() for work in contender.works]
        raw: dict[str, list[dict[str, Any]]] = {}
        for number in range(count):
            shift = number * len(pairs) // count
            for name, work in pairs[shift:] + pairs[:shift]:
                found = self.once(name, work)
                if found is not None:
                    raw.setdefault(_key(self._contenders[name], work), []).append(found)
        return {key: measurement(runs) for key, runs in raw.items() if len(runs) == count}

    def once(self, name: str, work: str) -> dict[str, Any] | None:
        """One work, timed: its facts with `seconds` and `cpu_seconds`; None where the contender is out."""
        if name in self.absent:
            return None
        self._pipes[name].send(work)
        found = self._answer(name)
        if found is not None and "items" in found:
            say(f"  {name}, {work}: {found['items'] / found['seconds']:.1f} a second")
        return found

    def _answer(self, name: str) -> dict[str, Any] | None:
        pipe = self._pipes[name]
        try:
            if not pipe.poll(PATIENCE):
                raise TimeoutError(f"no answer in {PATIENCE:.0f} s")
            answer: dict[str, Any] = pipe.recv()
        except (EOFError, OSError) as error:
            answer = {"failed": f"its process ended ({error or type(error).__name__})"}
        if "failed" in answer:
            self.absent[name] = answer["failed"]
            say(f"  {name} is out: {answer['failed']}")
            return None
        return answer

    def _end(self) -> None:
        for name, pipe in self._pipes.items():
            try:
                pipe.send(None)
            except OSError:
                self.absent.setdefault(name, "its process ended")
        for process in self._processes.values():
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()


def measurement(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rounds of one work as it is kept: raw seconds, their medians, and the last round's other facts."""
    rates = [run["items"] / run["seconds"] for run in runs]
    return {
        **{key: value for key, value in runs[-1].items() if key not in ("seconds", "cpu_seconds")},
        "seconds": [round(run["seconds"], 4) for run in runs],
        "cpu_seconds": [round(run["cpu_seconds"], 3) for run in runs],
        "per_second": round(median(rates), 3),
    }


def ratio(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
    """How many times as fast as theirs ours was: the median over rounds of the ratio within the round."""
    pairs = zip(ours["seconds"], theirs["seconds"], strict=True)
    return float(median((ours["items"] / mine) / (theirs["items"] / other) for mine, other in pairs))


def _key(contender: Contender, work: str) -> str:
    return contender.name if work == contender.works[0] else f"{contender.name}/{work}"


def _serve(pipe: Connection, enter: Callable[..., Entry], arguments: Mapping[str, Any]) -> None:
    """A contender's process: enter, then one answer a request, until None or the end of the pipe."""
    try:
        entry = enter(**arguments)
        pipe.send(dict(entry.facts))
        while (name := pipe.recv()) is not None:
            work = entry.works[name]()
            clock, cpu = time.perf_counter(), cpu_seconds()
            facts = work()
            pipe.send({**facts, "seconds": time.perf_counter() - clock, "cpu_seconds": cpu_seconds() - cpu})
    except EOFError:
        return
    except Exception as error:  # whatever a contender raises puts it out; the others go on
        lines = str(error).strip().splitlines() or [""]
        pipe.send({"failed": f"{type(error).__name__}: {lines[0][:300]}"})
