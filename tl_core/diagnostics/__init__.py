"""What is wrong with the data and the model, looked for in features that are cached anyway."""

from __future__ import annotations
