"""What the bytes of a sound file say about it, beyond what libsndfile makes of them.

How a file has to be handed to libsndfile so that it can be read forward only, through a pipe; whether a container
promises more sound than is there. Pure functions of bytes and of libsndfile's log.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

UNKNOWN_FRAMES = 1 << 48  # libsndfile has various numbers over this one for a length that it does not know

_NEEDS_SEEKING = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"riff", b".snd", b"caff")
_PLAIN = {1, 3, 6, 7}  # PCM, floating point, A-law, mu-law: what follows a WAV header is samples
_PLAIN_AU = {1, 2, 3, 4, 5, 6, 7, 27}
_MPEG = {0x50, 0x55}
_EXTENSIBLE = 0xFFFE
_TYPE_PROBE_BYTES = 12
_W64_FORM = 64  # where the body of a W64 file's format chunk begins
_HEADER_BYTES = 1 << 20  # where a WAV file's samples have begun
_SHORTENED = re.compile(r"^\s*(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")


@dataclass(frozen=True)
class Forward:
    """A way to read a file forward only.

    Attributes:
        skip: bytes to leave out at the start.
        prefix: bytes to put in their place.
        container: what it is, if libsndfile will take it for something else.
        is_safer: whether it is the better way even of a file that can seek, since libsndfile would believe a length
            that is wrong.
    """

    skip: int = 0
    prefix: bytes = b""
    container: str = ""
    is_safer: bool = False


def forward_ways(peek: Callable[[int], bytes]) -> tuple[Forward, ...]:
    """How libsndfile can read a file forward only, through a pipe.

    Args:
        peek: gives the first bytes of the file, as many as are asked for if it has them.

    Returns:
        What to try in turn; nothing if libsndfile has to seek in such a file, or does not know it. Without seeking it
        also makes up sound at the end of whatever is coded in blocks, such as ADPCM.
    """
    start = _tags_bytes(peek)
    head = peek(start + 16)[start:]
    if len(head) > 1 and head[0] == 0xFF and head[1] >= 0xE0:  # a frame of MPEG audio
        # Of a file without a Xing header libsndfile guesses the length from the first frame, and stops there.
        return (Forward(start, is_safer=True),)
    if head.startswith(b"fLaC"):
        # libsndfile up to 1.2.2 eats what it tells the container by, and has no FLAC left to decode.
        return (Forward(start), Forward(start, prefix=head[:_TYPE_PROBE_BYTES]))
    if start:
        return ()
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        return _wav_ways(peek)
    is_plain = (
        head.startswith(b"OggS")
        or (head.startswith(b"FORM") and head[8:12] == b"AIFF")
        or (head.startswith(b".snd") and int.from_bytes(head[12:16], "big") in _PLAIN_AU)
        or (head.startswith(b"riff") and _tag(peek(_W64_FORM + 40)[_W64_FORM:]) in _PLAIN)
    )
    return (Forward(),) if is_plain else ()


def needs_seeking(peek: Callable[[int], bytes]) -> bool:
    """Whether only a decoder that can seek reads such a file."""
    head = peek(8)
    return (head.startswith(_NEEDS_SEEKING) and not forward_ways(peek)) or head[4:] == b"ftyp"


def is_shortened(log: str) -> bool:
    """Whether libsndfile found less in a file than its chunks promise; from its log."""
    promises = ((int(promised), int(found)) for promised, found in _SHORTENED.findall(log))
    return any(found < promised and not _is_unknown_length(promised) for promised, found in promises)


def has_last_page(tail: bytes) -> bool:
    """Whether an Ogg file's last page is whole and says that it is the last; from the file's last 64 KiB."""
    start = tail.rfind(b"OggS")
    if start < 0 or len(tail) < start + 27:
        return False
    segments = tail[start + 26]
    length = 27 + segments + sum(tail[start + 27 : start + 27 + segments])
    return bool(tail[start + 5] & 4) and start + length <= len(tail)


def _tags_bytes(peek: Callable[[int], bytes]) -> int:
    """The length of the ID3 tags, pictures and all, that a file begins with."""
    start = 0
    while len(tag := peek(start + 10)[start:]) == 10 and tag.startswith(b"ID3"):
        size = tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9]
        start += 10 + size + (10 if tag[5] & 0x10 else 0)
    return start


def _is_unknown_length(length: int) -> bool:
    """Whether this is what a writer that cannot seek puts where a 32-bit length belongs."""
    return length == 0 or 0x7FFF_0000 <= length <= 0x8000_0000 or length >= 0xFFFF_0000


def _wav_ways(peek: Callable[[int], bytes]) -> tuple[Forward, ...]:
    """As `forward_ways`, of a WAV file: by the chunks before its samples."""
    start, form = 12, b""
    while start < _HEADER_BYTES and len(chunk := peek(start + 8)[start:]) == 8:
        name, length = struct.unpack("<4sI", chunk)
        start += 8
        if name == b"data" and _tag(form) in _MPEG:
            return (Forward(is_safer=True),)
        if name == b"data" and _tag(form) in _PLAIN:
            # The sound of a W64 file may go on for ever.
            header = _w64_header(form)
            return (Forward(start, header, "WAV", is_safer=True) if _is_unknown_length(length) else Forward(),)
        if name == b"data":
            break
        if name == b"fmt ":
            form = peek(start + length)[start:]
        start += length + length % 2
    return ()


def _tag(form: bytes) -> int:
    """What kind of samples the body of a format chunk announces."""
    tag = int.from_bytes(form[:2], "little")
    return int.from_bytes(form[24:26], "little") if tag == _EXTENSIBLE else tag


def _w64_header(form: bytes) -> bytes:
    """The start of a W64 file of unknown length, up to its samples; `form` is the body of the format chunk."""
    endless = struct.pack("<q", 1 << 62)
    body = form + bytes(-len(form) % 8)
    chunks = (_W64_RIFF, endless, b"wave" + _W64_TAIL, b"fmt " + _W64_TAIL, struct.pack("<q", 24 + len(form)), body)
    return b"".join((*chunks, b"data" + _W64_TAIL, endless))
