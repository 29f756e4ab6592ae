"""Transferability scores of features, as second opinions beside the probe: one module per score."""

from tl_core.selection.scores.consensus import consensus
from tl_core.selection.scores.h_score import h_score
from tl_core.selection.scores.jackknife import score_interval
from tl_core.selection.scores.knn import knn
from tl_core.selection.scores.logme import logme
from tl_core.selection.scores.nleep import leep, nleep
from tl_core.selection.scores.table import Score, scores_of

__all__ = ["Score", "consensus", "h_score", "knn", "leep", "logme", "nleep", "score_interval", "scores_of"]
