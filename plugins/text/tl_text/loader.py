"""Reading texts: inline strings from a table, or UTF-8 text files."""

from __future__ import annotations

import codecs
import html
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tl_core import BackboneSpec, DecodeError, Facts, FitWarning, Loader, Overlay, Saliency, Source
from tl_text import fit
from tl_text.corruptions import CORRUPTIONS

SHOWN = 500  # characters that a report shows of one text
_INVISIBLE = ("Cc", "Cf")  # control and format; unassigned may be an emoji newer than this Python


class TextLoader(Loader):
    """Texts as they are: no Unicode normalisation, no stripping; each backbone's tokenizer has its own.

    There is no augmentation: dropping or swapping a word ("not", a product's name) can change the label.
    """

    modality = "text"
    extensions = frozenset({".txt"})
    inline = True
    version = 1
    corruptions = CORRUPTIONS

    def decode(self, source: Source) -> str:
        """The text, without a byte-order mark. Raises DecodeError where nothing readable is in it."""
        # both ways without a byte-order mark: the same bytes must give the same text
        text = source.removeprefix("\ufeff") if isinstance(source, str) else _read(source)
        fault = _fault(text)
        if fault:
            raise DecodeError(fault)
        return text

    def measure(self, source: Source) -> Facts:
        """Length, script and language."""
        return fit.measure(self.decode(source))

    def misfits(self, spec: BackboneSpec, facts: Sequence[Facts]) -> list[FitWarning]:
        """Texts that are longer than what the backbone reads, or in a language that it has not learnt."""
        from tl_text.catalogue import catalogue

        return fit.misfits(spec, facts, catalogue)

    def plain(self, decoded: Any) -> Mapping[str, float]:
        """Words, pairs of words and pieces of words, and how often each occurs."""
        from tl_text.plain import plain

        return plain(decoded)

    def render(self, source: Source) -> str:
        """A paragraph with the text's first 500 characters."""
        text = self.decode(source)
        shown = text if len(text) <= SHOWN else text[:SHOWN].rstrip() + "…"
        return f'<p class="text">{html.escape(shown)}</p>'

    def overlay(self, source: Source, saliencies: Sequence[Saliency]) -> Overlay:
        """The text once for each saliency, its words marked by how much they spoke for or against its class."""
        from tl_text.overlay import overlay

        return overlay(self.decode(source), saliencies)


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DecodeError(f"unreadable file: {error.strerror or error}") from error
    if not data:
        raise DecodeError("empty file")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DecodeError(f"not UTF-8: byte 0x{data[0]:02x} at offset 0 starts a UTF-16 text; save it as UTF-8")
    mark = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    try:
        return data[mark:].decode("utf-8")
    except UnicodeDecodeError as error:
        offset = mark + error.start
        raise DecodeError(f"not UTF-8: byte 0x{data[offset]:02x} at offset {offset}") from error


def _fault(text: str) -> str | None:
    if not text:
        return "empty text"
    if text.isspace():
        return "only whitespace"
    if "\0" in text:
        return f"NUL character at position {text.index(chr(0))}: not a text"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        return f"undecodable character U+{code:04X} at position {error.start}: half of a surrogate pair"
    if all(char.isspace() or unicodedata.category(char) in _INVISIBLE for char in text):
        return "only control characters"
    return None
