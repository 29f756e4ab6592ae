"""Fast tokenizers from a model folder, set up once and then only read, so that threads can share them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tl_core import UserError


def load_tokenizer(folder: Path, max_length: int, lowercase: bool) -> tuple[Any, str]:
    """A `tokenizers.Tokenizer` that cuts at max_length and never pads, and the digest of where it came from.

    tokenizer.json is taken as it stands; a folder that has only a vocabulary is converted by transformers.
    Raises UserError where neither gives a fast tokenizer.
    """
    path = folder / "tokenizer.json"
    try:
        if path.is_file():
            from tokenizers import Tokenizer

            text = path.read_text(encoding="utf-8")
            tokenizer = Tokenizer.from_str(text)
        else:
            tokenizer = _converted(folder)
            text = tokenizer.to_str()
    except Exception as error:  # the Rust library raises bare Exception
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"no fast tokenizer in {folder}: {first}; put a tokenizer.json beside config.json") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    if lowercase:
        from tokenizers.normalizers import Lowercase, Sequence

        old = tokenizer.normalizer
        tokenizer.normalizer = Sequence([Lowercase()] + ([old] if old is not None else []))
    return tokenizer, hashlib.sha256(text.encode()).hexdigest()


def _converted(folder: Path) -> Any:
    from transformers import AutoTokenizer

    auto = AutoTokenizer.from_pretrained(folder, use_fast=True, local_files_only=True, trust_remote_code=False)
    return auto.backend_tokenizer
