"""What is not the same in two files of one name, said by what they hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Change = tuple[str, str, str]
"""What changed, what it was then, and what it is now."""

ABSENT = "absent"
_WIDTH = 60  # characters of a value that are told


def changes(then: Path, now: Path) -> list[Change]:
    """What differs between two files or folders, none where all bytes are the same.

    Of JSON each key, of Parquet each column with the number of its rows, of any other file that its bytes differ.
    """
    if not (then.is_dir() and now.is_dir()):
        return _of_files(then, now)
    names = sorted({path.relative_to(root).as_posix() for root in (then, now) for path in root.rglob("*")
                    if path.is_file()})  # fmt: skip
    return [(f"{name}: {what}" if what else name, a, b) for name in names
            for what, a, b in _of_files(then / name, now / name)]  # fmt: skip


def _of_files(then: Path, now: Path) -> list[Change]:
    before, after = then.is_file(), now.is_file()
    if not (before and after):
        said = {True: "present", False: ABSENT}
        return [("", said[before], said[after])] if before or after else []
    one, other = then.read_bytes(), now.read_bytes()
    if one == other:
        return []
    found: list[Change] = []
    if then.suffix == ".json":
        found = _of_json(one, other)
    elif then.suffix == ".parquet":
        found = _of_tables(then, now)
    return found or [("", f"{len(one):,} bytes", f"{len(other):,} bytes, others" if len(one) == len(other) else
                      f"{len(other):,} bytes")]  # fmt: skip


def _of_json(one: bytes, other: bytes) -> list[Change]:
    try:
        then, now = dict(_leaves(json.loads(one), "")), dict(_leaves(json.loads(other), ""))
    except ValueError:
        return []
    return [
        (key, _told(then, key), _told(now, key))
        for key in {**then, **now}
        if key not in then or key not in now or then[key] != now[key]
    ]


def _told(leaves: dict[str, Any], key: str) -> str:
    text = json.dumps(leaves[key], ensure_ascii=False) if key in leaves else ABSENT
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Dotted keys and plain values; the places of a list count as keys."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not inner:
        yield key, value
    for name, one in inner:
        yield from _leaves(one, f"{key}.{name}" if key else str(name))


def _of_tables(then: Path, now: Path) -> list[Change]:
    import pyarrow.parquet as pq

    one, other = pq.read_table(then), pq.read_table(now)
    if one.num_rows != other.num_rows:
        return [("rows", f"{one.num_rows:,}", f"{other.num_rows:,}")]
    found: list[Change] = []
    for name in dict.fromkeys((*one.column_names, *other.column_names)):
        if name not in one.column_names or name not in other.column_names:
            found.append((name, *("a column" if name in table.column_names else ABSENT for table in (one, other))))
            continue
        pairs = list(zip(one[name].to_pylist(), other[name].to_pylist(), strict=True))
        rows = [i for i, (a, b) in enumerate(pairs) if a != b]
        if rows:
            a, b = (str(value)[:_WIDTH] for value in pairs[rows[0]])
            found.append((f"{name} of {len(rows):,} of {len(pairs):,} rows, first row {rows[0]}", a, b))
    return found
