"""Which backbone suits the data: scores of candidates on a sample of the training rows, and their order."""

from tl_core.selection.crossval import ProbeScore, cross_validated_probe
from tl_core.selection.logme import logme
from tl_core.selection.ranking import Candidate, rank
from tl_core.selection.sample import stratified_sample

__all__ = ["Candidate", "ProbeScore", "cross_validated_probe", "logme", "rank", "stratified_sample"]
