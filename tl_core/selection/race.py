"""The race: candidates on growing samples within a budget of work; who can't be the best any more leaves it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tl_core.selection.outcomes import Outcomes
from tl_core.selection.standing import decided, hopeless, standings

CERTAIN = "more rows would change next to nothing"
ROWS_USED = "every training row that select.sample allows was used"
NO_ROOM = "the next round would not fit into select.minutes"
ALONE = "there is only one candidate"
LAST_LEFT = "only one candidate is left"
LEADERS_LOST = "everyone who was still in it dropped out"

_FAR_BEYOND = 2.0  # times what is left of the budget: then a catalogue's figure will do, and nothing is opened


class DroppedOut(Exception):  # noqa: N818 - named for what happened to a candidate, no fault of a caller
    """A candidate can't be measured; the text is the reason that its row of the ranking shows."""


@dataclass(frozen=True)
class Entrant:
    """Who competes. flops: of one row as the catalogue states it, None where nothing is known before it is opened.

    guess: the same by a rule of thumb, for the order alone; it spares who states nothing from being opened twice.
    """

    name: str
    flops: float | None = None
    guess: float | None = None


@dataclass(frozen=True)
class Budget:
    """What the race may cost, as work, so that the plan does not hang on how quick the machine happens to be.

    speed: FLOP/s of the machine; opening: seconds that each candidate costs each round whatever its size (weights,
    conversion, the probe).
    """

    minutes: float
    speed: float
    opening: float = 0.0

    @property
    def work(self) -> float:
        """FLOPs in all."""
        return self.minutes * 60 * self.speed

    def of(self, flops: float | None, rows: int) -> float:
        """The work of measuring one candidate on so many new rows; one that can't be counted costs its opening."""
        return (flops or 0.0) * rows + self.opening * self.speed


@dataclass(frozen=True)
class Judgement:
    """What the outcomes so far say: who can't be the best, whether more rows are worth their cost."""

    hopeless: frozenset[str] = frozenset()
    decided: bool = False


Judge = Callable[[Mapping[str, Sequence[Outcomes]]], Judgement]


@dataclass(frozen=True)
class Progress:
    """A moment of the race: `name` is about to be measured, after `done` of `entered`; who leads, at which metric."""

    round: int
    rows: int
    done: int
    entered: int
    name: str
    leader: str | None
    value: float | None


@dataclass(frozen=True)
class Round:
    """A round that was run: rows of the sample, who entered it, who left after it."""

    rows: int
    entered: int
    eliminated: tuple[str, ...]


@dataclass
class Race:
    """What a race has found.

    history: outcomes of everyone that was measured, by round, without those that dropped out; eliminated, dropped:
    reasons by name; flops: per row, as counted where it was; planned: FLOPs by the plan; stopped: why it ended; late:
    whether that was the clock.
    """

    history: dict[str, list[Outcomes]] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)
    eliminated: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    flops: dict[str, float | None] = field(default_factory=dict)
    planned: float = 0.0
    stopped: str = ""
    late: bool = False

    @property
    def survivors(self) -> list[str]:
        """Who is left, the cheapest first."""
        left = [name for name in self.history if name not in self.eliminated]
        return sorted(left, key=lambda name: _cheapest_first(self.flops.get(name), name))

    def leader(self) -> tuple[str | None, float | None]:
        """Who has the best metric on the largest sample that all who are left were measured on, and that metric."""
        left = {name: seen for name, seen in self.history.items() if name not in self.eliminated}
        common = min((len(seen[-1]) for seen in left.values()), default=0)
        values = {name: seen.metric() for name, found in left.items() for seen in found if len(seen) == common}
        best = max(values, key=lambda name: (values[name], name), default=None)
        return best, None if best is None else values[best]


def judge_by(*, confidence: float, tolerance: float, seed: int) -> Judge:
    """The judge of the ranking: the joint posterior over all candidates (tl_core.selection.standing)."""

    def judge(history: Mapping[str, Sequence[Outcomes]]) -> Judgement:
        found = standings(history, confidence=confidence, seed=seed)
        return Judgement(frozenset(hopeless(found)), decided(found, tolerance=tolerance))

    return judge


def run_race(
    entrants: Iterable[Entrant],
    sizes: Sequence[int],
    *,
    weigh: Callable[[str], float | None],
    measure: Callable[[str, int], Outcomes],
    judge: Judge,
    budget: Budget,
    time_left: Callable[[], float],
    watch: Callable[[Progress], None] | None = None,
) -> Race:
    """Run the rounds; who competes in which order does not depend on the order given.

    sizes: rows of the sample by round, growing, each round's rows beginning with those of the one before. weigh: FLOPs
    of one row of an opened candidate, None where they can't be counted; measure: the outcomes of a candidate on the
    sample's first rows. Both may raise DroppedOut, any other exception ends the race. time_left: seconds, a guard
    against what the plan could not foresee; once it is used up, what is not measured yet is left out.

    Who does not fit into the budget in the first round drops out, the cheapest are served first; the very first that
    can be measured runs in any case. A later round is run whole or not at all.
    """
    running = _Running(Race(), budget, weigh, measure, time_left, watch)
    entered = list(entrants)
    running.first_round(entered, sizes[0])
    race = running.race
    for number, rows in enumerate(sizes):
        if number:
            running.later_round(number, sizes[number - 1], rows)
        names = race.survivors
        judgement = judge(race.history) if len(names) > 1 else Judgement()
        out = sorted(name for name in names if name in judgement.hopeless)
        race.eliminated |= dict.fromkeys(out, f"all but certainly not the best after {rows:,} samples")
        race.rounds.append(Round(rows, running.entered, tuple(out)))
        race.stopped = running.why_stop(judgement, len(entered), rows, sizes[number + 1 : number + 2])
        if race.stopped:
            break
    if not race.survivors:  # who was behind them is all that there is to choose from
        race.eliminated.clear()
    return race


@dataclass
class _Running:
    """A race under way. entered: candidates that the present round began with."""

    race: Race
    budget: Budget
    weigh: Callable[[str], float | None]
    measure: Callable[[str, int], Outcomes]
    time_left: Callable[[], float]
    watch: Callable[[Progress], None] | None
    entered: int = 0
    late: str = ""

    def first_round(self, entrants: Sequence[Entrant], rows: int) -> None:
        """Everyone, the cheapest first, as far as the budget goes."""
        self.entered = len(entrants)
        ordered = self._ordered(entrants)
        true_to_stated = 1.0  # rows that are shorter than a catalogue's usual one cost less, for all candidates alike
        for done, entrant in enumerate(ordered):
            alone, name, stated = not self.race.history, entrant.name, entrant.flops
            try:
                if not alone and stated is not None:
                    self._require(stated * true_to_stated, rows, _FAR_BEYOND)
                if not alone and self._out_of_time(1):
                    raise DroppedOut(f"{self.late} before its turn")
                self._tell(0, rows, done, name)
                if name not in self.race.flops:
                    self.race.flops[name] = self.weigh(name)
                flops = self.race.flops[name]
                if not alone:
                    self._require(flops, rows)
                self.race.planned += self.budget.of(flops, rows)
                self.race.history[name] = [self.measure(name, rows)]
            except DroppedOut as reason:
                self.race.dropped[name] = str(reason)
                continue
            if flops and stated:
                true_to_stated = flops / stated

    def later_round(self, number: int, before: int, rows: int) -> None:
        """The survivors on more rows."""
        names = self.race.survivors
        self.entered = len(names)
        self.race.planned += self._work(names, rows - before)
        for done, name in enumerate(names):
            if self._out_of_time(number + 1):
                return
            self._tell(number, rows, done, name)
            try:
                self.race.history[name].append(self.measure(name, rows))
            except DroppedOut as reason:
                del self.race.history[name]
                self.race.dropped[name] = str(reason)

    def why_stop(self, judgement: Judgement, entered: int, rows: int, following: Sequence[int]) -> str:
        """Why the race ends here, "" where it goes on."""
        names = self.race.survivors
        if self.late:
            return self.late
        if entered == 1:
            return ALONE
        if len(self.race.history) < 2:
            return LAST_LEFT
        if not names:
            return LEADERS_LOST
        if judgement.decided or len(names) < 2:
            return CERTAIN
        if not following:
            return ROWS_USED
        if self.race.planned + self._work(names, following[0] - rows) > self.budget.work:
            return NO_ROOM
        return ""

    def _ordered(self, entrants: Sequence[Entrant]) -> list[Entrant]:
        """The cheapest first by what is stated or guessed; who has neither is opened for it, and closed again."""
        known: dict[str, float | None] = {}
        for entrant in sorted(entrants, key=lambda e: e.name):
            known[entrant.name] = entrant.flops if entrant.flops is not None else entrant.guess
            if known[entrant.name] is None and len(entrants) > 1:
                try:
                    known[entrant.name] = self.race.flops[entrant.name] = self.weigh(entrant.name)
                except DroppedOut as reason:
                    self.race.dropped[entrant.name] = str(reason)
        left = [entrant for entrant in entrants if entrant.name not in self.race.dropped]
        return sorted(left, key=lambda e: _cheapest_first(known[e.name], e.name))

    def _work(self, names: Iterable[str], rows: int) -> float:
        return sum(self.budget.of(self.race.flops[name], rows) for name in names)

    def _require(self, flops: float | None, rows: int, margin: float = 1.0) -> None:
        """Raises DroppedOut, with an estimate, where so many rows do not fit into what is left of the budget."""
        work, left = self.budget.of(flops, rows), max(0.0, self.budget.work - self.race.planned)
        if work <= margin * left:
            return
        taken = "" if work > self.budget.work else ", of which cheaper candidates take most"
        raise DroppedOut(
            f"too slow: about {_duration(work / self.budget.speed)} for {rows:,} samples on this machine; "
            f"select.minutes is {self.budget.minutes:g}{taken}: raise it, or name this backbone alone"
        )

    def _out_of_time(self, number: int) -> bool:
        """Whether the clock has stopped the race; said in `late`."""
        if not self.late and self.time_left() <= 0:
            self.race.late = True
            self.late = f"the clock: far more than select.minutes ({self.budget.minutes:g}) had gone in round {number}"
        return bool(self.late)

    def _tell(self, number: int, rows: int, done: int, name: str) -> None:
        if self.watch is not None:
            self.watch(Progress(number + 1, rows, done, self.entered, name, *self.race.leader()))


def _cheapest_first(flops: float | None, name: str) -> tuple[bool, float, str]:
    """What can't be counted comes last: the clock alone would stop it."""
    return flops is None, flops or 0.0, name


def _duration(seconds: float) -> str:
    """A rough length of time in words: two digits are more than the plan can know."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"{minutes:.2g} min" if minutes < 10 else f"{round(minutes):,} min"
