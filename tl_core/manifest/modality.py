"""Which modality the data are of: the user's word, else what the loaders claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tl_core.errors import UserError, did_you_mean
from tl_core.types import Loader


def suffix_of(source: str) -> str:
    """The file kind of a path: lower case, with the dot; empty where it has none."""
    stem, _, kind = source.rstrip("/").rpartition("/")[2].rpartition(".")  # a Path per row is slow
    return f".{kind}".lower() if stem and kind else ""


def kinds(loader: Loader, loaders: Sequence[Loader]) -> frozenset[str]:
    """File kinds that the loader reads.

    A loader that takes inline text reads .txt files too, unless another loader claims them.
    """
    if loader.inline and not any(".txt" in other.extensions for other in loaders):
        return loader.extensions | {".txt"}
    return loader.extensions


def named_loader(modality: str, loaders: Sequence[Loader]) -> Loader:
    """The loader of `modality`. Raises UserError where there is none."""
    for loader in loaders:
        if loader.modality == modality:
            return loader
    raise UserError(f"no plugin for modality '{modality}'{did_you_mean(modality, _names(loaders)) or ';'} "
                    f"installed: {', '.join(_names(loaders)) or 'none'}")  # fmt: skip


def loader_of_files(suffixes: Counter[str], loaders: Sequence[Loader], where: str) -> tuple[Loader, str]:
    """The loader that claims most of the files, and a note that says so. Raises UserError where none stands out."""
    claims = {loader: sum(suffixes[kind] for kind in kinds(loader, loaders)) for loader in loaders}
    most = max(claims.values(), default=0)
    best = [loader for loader, count in claims.items() if count == most]
    if most and len(best) == 1:
        return best[0], (f"modality {best[0].modality} (guessed: {most} of {suffixes.total()} files; modality sets it)")
    found = ", ".join(f"{kind or 'no suffix'} ({count})" for kind, count in suffixes.most_common(5))
    raise UserError(f"can't tell the modality of {where}, which holds {found or 'no files'}; "
                    f"set modality to one of: {', '.join(_names(loaders)) or 'none installed'}")  # fmt: skip


def loader_of_texts(loaders: Sequence[Loader], where: str, column: str) -> tuple[Loader, str]:
    """The loader that takes table cells, and a note that says so. Raises UserError unless there is just one."""
    takers = [loader for loader in loaders if loader.inline]
    if len(takers) == 1:
        name = takers[0].modality
        return takers[0], f"modality {name} (guessed: samples lie in column '{column}'; modality sets it)"
    if takers:
        raise UserError(f"can't tell the modality of {where}: column '{column}' may be any of "
                        f"{', '.join(_names(takers))}; set modality to one of them")  # fmt: skip
    raise UserError(f"no installed modality reads samples out of table cells, such as column '{column}' of {where}; "
                    f"installed: {', '.join(_names(loaders)) or 'none'}")  # fmt: skip


def _names(loaders: Sequence[Loader]) -> list[str]:
    return sorted(loader.modality for loader in loaders)
