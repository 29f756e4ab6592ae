"""A model registry as watchers are told of it, without any repository."""

from __future__ import annotations

from typing import Any

FACTS = {
    "format": 1, "data_version": "d1", "code_revision": "c0de", "config_digest": "cf9", "test_set": None,
    "decision": "Refused: new (metric failed).", "why": "retrain of today", "report": "",
    "metric": {"name": "accuracy", "value": 0.9, "low": 0.85, "high": 0.95, "confidence": 0.9, "n_test": 200},
}  # fmt: skip
EVENT = {"kind": "promote", "alias": "champion", "was": None, "by": "me", "why": "good", "time": "2026-03-01T10:00:00"}


def registry(count: int = 2, champion: int = 0, **more: Any) -> dict[str, Any]:
    """A registry with so many versions, of which one may serve and the last one is the challenger."""
    versions = [
        {
            "name": f"v{n}", "tag": f"model@v{n}.0.0", "commit": f"{n:040x}", "time": "2026-03-01T10:00:00+00:00",
            "by": "me", "said": f"v{n}: accuracy 0.900", "facts": FACTS | {"bundle": f"b{n}", "report": f"r{n}"},
            "history": [EVENT] if n == champion else [],
        }
        for n in range(1, count + 1)
    ]  # fmt: skip
    aliases = {
        "champion": f"v{champion}" if champion else None,
        "challenger": None if champion == count else f"v{count}",
    }
    return {
        "name": "birds", "model": "model", "repository": "https://git.example.org/birds", "history_id": "a1",
        "path": "artifacts/tune/model", "versions": versions, "aliases": aliases, **more,
    }  # fmt: skip
