"""Which backbone suits the data: candidates race on growing samples of the training rows, within a budget of work."""

from tl_core.selection.crossval import cross_validated_outcomes
from tl_core.selection.outcomes import Outcomes
from tl_core.selection.race import Budget, DroppedOut, Entrant, Race, judge_by, run_race
from tl_core.selection.ranking import Candidate, why_chosen
from tl_core.selection.sample import nested_sample, stratified_sample
from tl_core.selection.scores import consensus, logme, scores_of
from tl_core.selection.speed import speed_of
from tl_core.selection.standing import Standing, choose, contenders, standings

__all__ = [
    "Budget",
    "Candidate",
    "DroppedOut",
    "Entrant",
    "Outcomes",
    "Race",
    "Standing",
    "choose",
    "consensus",
    "contenders",
    "cross_validated_outcomes",
    "judge_by",
    "logme",
    "nested_sample",
    "run_race",
    "scores_of",
    "speed_of",
    "standings",
    "stratified_sample",
    "why_chosen",
]
