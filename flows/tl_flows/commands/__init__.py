"""The commands of `tl`, one module a topic."""
