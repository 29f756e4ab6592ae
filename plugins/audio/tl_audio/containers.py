"""What an audio file's container promises: the decoder itself reads a cut WAV, AIFF or Ogg file without a word."""

from __future__ import annotations

import struct
from pathlib import Path

_OGG_PAGE = 65_307  # bytes of the largest Ogg page (RFC 3533)
_UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)  # written by programs that stream and can't know the length


def broken_promise(path: Path) -> str | None:
    """Why the file holds less audio than its container says, or None where it keeps its word or makes none."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(12)
        if head[:4] in (b"RIFF", b"RIFX", b"FORM"):
            return _chunks(path, size, ">" if head[:4] != b"RIFF" else "<")
    if head[:4] == b"OggS":
        return _ogg(path, size)
    return None


def promises_frames(path: Path) -> bool:
    """Whether the frame count that the decoder states comes from the file: an MP3 without a Xing header has none."""
    with path.open("rb") as stream:
        head = stream.read(10)
        if head[:3] == b"ID3":  # seven bits of each size byte count
            stream.seek(
                10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            )
        else:
            stream.seek(0)
        frame = stream.read(64)
    is_mpeg = len(frame) > 1 and frame[0] == 0xFF and frame[1] & 0xE0 == 0xE0
    return not is_mpeg or b"Xing" in frame or b"Info" in frame


def _chunks(path: Path, size: int, order: str) -> str | None:
    """RIFF and AIFF: the audio chunk's stated size against the bytes that are there."""
    with path.open("rb") as stream:
        position = 12
        while position + 8 <= size:
            stream.seek(position)
            name, length = struct.unpack(f"{order}4sI", stream.read(8))
            there = size - position - 8
            if name in (b"data", b"SSND"):
                if length in _UNKNOWN_SIZES or length <= there:
                    return None
                return f"the header promises {length} bytes of audio, {there} are there"
            position += 8 + length + length % 2
    return None


def _ogg(path: Path, size: int) -> str | None:
    """Ogg: the last page must be whole and carry the end-of-stream mark."""
    with path.open("rb") as stream:
        stream.seek(max(0, size - 2 * _OGG_PAGE))
        tail = stream.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or not page[5] & 0x04:
        return "the stream stops before its end mark"
    segments = page[27 : 27 + page[26]]
    if len(segments) < page[26] or len(page) < 27 + page[26] + sum(segments):
        return "the last page is cut"
    return None
