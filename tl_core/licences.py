"""What a licence's name says about use: permissive, copyleft, non-commercial, or not known."""

from __future__ import annotations

import re
from typing import Literal

LicenceKind = Literal["permissive", "copyleft", "non-commercial", "unknown"]

_PERMISSIVE = (
    r"apache(-?[12](\.[01])?)?|asl-2\.0",
    r"mit(-0(\.0)?|-mit|-cmu)?|expat|x11|isc|ncsa|zlib|unlicen[cs]e|wtfpl|postgresql|ms-pl|bsl-1\.0|afl-3\.0|ecl-2\.0|artistic-2\.0",
    r"0?bsd|((new|modified|revised|simplified)-)?bsd(-?[0-4](-clause)?(-clear|-patent)?)?|[234]-clause-bsd",
    r"cc0(-1\.0)?|cc-by(-[1-4]\.[05])?|pddl(-1\.0)?|odc-by(-1\.0)?|cdla-permissive-[12]\.0|public-domain",
    r"psf(-2\.0)?|python-2\.0(\.1)?",
)
_COPYLEFT = (
    r"(gnu-)?[al]?gpl(-?[1-3](\.[01])?)?\+?(-only|-or-later)?",
    r"mpl(-[12]\.[01])?|epl-[12]\.0|eupl(-1\.[12])?|osl-3\.0|cecill(-[bc]|-2\.[01])?|ms-rl|cddl-1\.[01]",
    r"cc-by-sa(-[1-4]\.[05])?|gfdl(-1\.[1-3])?(-only|-or-later)?|odbl(-1\.0)?|cdla-sharing-1\.0",
)
_NON_COMMERCIAL = (
    r"cc-by-nc(-sa|-nd)?(-[1-4]\.[05])?",
    r"polyform-noncommercial(-1\.0\.0)?|apple-amlr|intel-research|fair-noncommercial-research",
)
_KINDS: tuple[tuple[LicenceKind, tuple[str, ...]], ...] = (
    ("permissive", _PERMISSIVE),
    ("copyleft", _COPYLEFT),
    ("non-commercial", _NON_COMMERCIAL),
)
_SHORT = {
    "creative-commons": "cc", "attribution": "by", "non-commercial": "nc", "noncommercial": "nc",
    "share-alike": "sa", "sharealike": "sa", "no-derivatives": "nd", "noderivatives": "nd",
}  # fmt: skip


def licence_kind(text: str | None) -> LicenceKind:
    """What the licence of this name allows; `unknown` where the name does not settle it.

    text: an SPDX identifier or a usual spelling of one, as hubs and libraries state them. Custom terms (openrail,
    Llama, Gemma, DINOv3, ...) and `other` are unknown: one has to read them. Non-commercial stands before copyleft
    where a licence is both.
    """
    name = _normal(re.sub(r"\s*\((?:repository|file|see|per)\b[^()]*\)$", "", text or ""))  # where it is stated
    for kind, patterns in _KINDS:
        if any(re.fullmatch(pattern, name) for pattern in patterns):
            return kind
    return "unknown"


def _normal(text: str) -> str:
    """`Apache License, Version 2.0` as `apache-2.0`, `GPLv3` as `gpl3`, `CC BY-NC 4.0` as `cc-by-nc-4.0`."""
    name = re.sub(r"v(er(sion)?)?[-. ]?(?=\d)", "", text.casefold())
    words = re.split(r"[\s_,()/-]+", name)
    name = "-".join(word for word in words if word not in ("", "the", "licence", "license", "international"))
    if name.startswith("creative-commons"):
        for long, short in _SHORT.items():
            name = name.replace(long, short)
    return re.sub(r"(?<=[a-z]-)(\d)$", r"\1.0", name)  # apache-2, gpl-3
