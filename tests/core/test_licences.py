"""What licences' names say, in the spellings that hubs and libraries use."""

from __future__ import annotations

import pytest

from tl_core.licences import licence_kind

SPELLINGS = {
    "permissive": """
        apache-2.0; Apache-2.0; Apache 2.0; Apache License 2.0; Apache License, Version 2.0; Apache Licence v2; apache2
        MIT; mit; MIT License; The MIT License (MIT); MIT-0; bsd; BSD-3-Clause; bsd-2-clause; BSD 3-Clause License
        New BSD License; BSD-3-Clause-Clear; 0BSD; isc; zlib; Unlicense; cc0-1.0; CC0 1.0; cc-by-4.0; CC BY 4.0
        Creative Commons Attribution 4.0 International; cc-by-3.0; cc-by-2.5; odc-by; afl-3.0; bsl-1.0; Public Domain
    """,
    "copyleft": """
        gpl; GPL-3.0; gpl-3; GPLv3; GPLv3+; GNU GPL v3; gpl-2.0-only; GPL-3.0-or-later; lgpl-2.1; LGPL-3.0; agpl-3.0
        AGPL-3.0-or-later; mpl-2.0; epl-2.0; eupl-1.2; cc-by-sa-4.0; CC BY-SA 3.0; odbl; gfdl
        Creative Commons Attribution Share Alike 4.0
    """,
    "non-commercial": """
        cc-by-nc-4.0; CC BY-NC 4.0; cc-by-nc; cc-by-nc-sa-4.0; cc-by-nc-sa; cc-by-nc-nd-3.0; CC-BY-NC-SA-2.5
        Creative Commons Attribution Non Commercial 4.0; apple-amlr; intel-research
        Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International License
        fair-noncommercial-research-license; PolyForm Noncommercial License 1.0.0
    """,
    "unknown": """
        other; unknown; custom; proprietary; see LICENSE; openrail; openrail++; creativeml-openrail-m
        llama2; llama3.1; gemma; Gemma Terms of Use; dinov3-license; fastvit-license; apple-ascl; cc-by-nd-4.0; cc
        mitigated; not apache-2.0; MIT OR GPL-3.0; Apache-2.0 WITH LLVM-exception; apache-2.0 non-commercial; busl-1.1
        deepfloyd-if-license; c-uda; cc-by-ncc; gpl-non-commercial
    """,
}
TABLE = [
    (name.strip(), kind)
    for kind, names in SPELLINGS.items()
    for name in names.replace("\n", ";").split(";")
    if name.strip()
]


@pytest.mark.parametrize(("text", "kind"), TABLE, ids=[name for name, _ in TABLE])
def test_kinds(text: str, kind: str) -> None:
    assert licence_kind(text) == kind
    assert licence_kind(f" {text.upper()} ") == kind


def test_nothing_stated_is_unknown() -> None:
    assert licence_kind(None) == licence_kind("") == "unknown"
