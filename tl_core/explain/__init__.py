"""Explanations: which parts of a sample decided an output of the model; found by gradients, shown by plugins."""

from tl_core.explain.explanation import Explanation, Model, explain, explained, failed
from tl_core.explain.heats import Found, Said, embed_windows, find_heats

__all__ = ["Explanation", "Found", "Model", "Said", "embed_windows", "explain", "explained", "failed", "find_heats"]
