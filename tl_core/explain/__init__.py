"""Explanations: which parts of a sample decided an output of the model; found by gradients, shown by plugins."""

from tl_core.explain.explanation import Explanation, Model, explain, failed
from tl_core.explain.heats import Found, Said, embed_windows, find_heats

__all__ = ["Explanation", "Found", "Model", "Said", "embed_windows", "explain", "failed", "find_heats"]
