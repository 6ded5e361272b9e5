"""The lines of a token stream as values: an item's head, the line that closes it, the line that gives it up.

Knows the words of the format (FORMAT.md) and nothing of files, vocabularies or music.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from musictool.errors import InputError, MusicToolError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT_VERSION = 1
KINDS = ("events", "codes")
LINE_BYTES_MAX = 8 << 20
NAME_CHARACTERS_MAX = 1024

Kind = Literal["events", "codes"]


class StreamError(InputError):
    """A stream that breaks the rules of its format."""

    default_code = "corrupt-stream"


@dataclass(frozen=True, slots=True)
class Head:
    """What begins an item.

    Attributes:
        item: the item's name, the stem of the file it was made from.
        kind: `events` (ids of a vocabulary) or `codes` (rows of a codec's codebooks).
        vocab: name of the vocabulary or codec.
        vocab_sha: its fingerprint, sha256 in hexadecimal.
        meta: what tokens can't say: tempo map, track names, duration.
        made: provenance, one entry a stage, the oldest first.
        number, of: the item's place among those its stream was begun with, from 1; None where that is not known.
    """

    item: str
    kind: Kind
    vocab: str
    vocab_sha: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    made: tuple[Mapping[str, Any], ...] = ()
    number: int | None = None
    of: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The head's line."""
        line: dict[str, Any] = {"mtk": FORMAT_VERSION, "sealed": 1, "item": self.item, "kind": self.kind}
        if self.number is not None:
            line["number"] = self.number
        if self.of is not None:
            line["of"] = self.of
        return {
            **line,
            "vocab": self.vocab,
            "vocab_sha": self.vocab_sha,
            "meta": dict(self.meta),
            "made": list(self.made),
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Head:
        """Read a head's line.

        Raises:
            StreamError: the version, the kind or a field's type is not one this reader knows.
        """
        if line["mtk"] != FORMAT_VERSION or isinstance(line["mtk"], bool):
            raise StreamError(f"stream version {line['mtk']!r:.20} is not 1", hint="a newer mtk may read it")
        item = _field(line, "item", str)
        if not item or len(item) > NAME_CHARACTERS_MAX:
            raise StreamError(f"an item's name has 1 to {NAME_CHARACTERS_MAX} characters, not {len(item)}")
        kind = _field(line, "kind", str)
        if kind not in KINDS:
            raise StreamError(f"unknown kind {kind[:40]!r}", hint=f"this version knows {' and '.join(KINDS)}")
        made = _field(line, "made", list, [])
        if not all(isinstance(entry, dict) for entry in made):
            raise StreamError("'made' holds something other than objects")
        number, of = (_field(line, key, int, None) for key in ("number", "of"))
        if not 1 <= (number or 1) <= (of or number or 1):
            raise StreamError(f"no such place: item {number} of {of}")
        return cls(
            item,
            cast(Kind, kind),
            _field(line, "vocab", str),
            _field(line, "vocab_sha", str),
            _field(line, "meta", dict, {}),
            tuple(made),
            number,
            of,
        )


class CodeChunk(NamedTuple):
    """Some frames of an item of codes.

    Attributes:
        codes: int32 [K, frames].
        scales: float32 [s], of the segments that begin here, where the codec normalises them; else empty.
    """

    codes: NDArray[np.int32]
    scales: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Closing:
    """What ends an item that is whole.

    Attributes:
        count: number of ids, or of frames.
        sha: sha256 of the ids as int32 little-endian (codes: frame by frame, then the scales), in hexadecimal.
        source_sha: sha256 of what the item was made from, empty if not known.
        samples: of an item of codes: how long the sound is, in samples of each channel at the codec's rate.
        source_samples: the same of the sound it was made from, at that one's rate.
    """

    count: int
    sha: str
    source_sha: str = ""
    samples: int | None = None
    source_samples: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The closing line."""
        line: dict[str, Any] = {"end": 1, "n": self.count, "sha": self.sha}
        if self.source_sha:
            line["source_sha"] = self.source_sha
        if self.samples is not None:
            line["samples"] = self.samples
        if self.source_samples is not None:
            line["source_samples"] = self.source_samples
        return line

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Closing:
        """Read a closing line.

        Raises:
            StreamError: a field is missing or of another type, or a length is negative.
        """
        samples, source_samples = (_field(line, key, int, None) for key in ("samples", "source_samples"))
        if min(samples or 0, source_samples or 0) < 0:
            raise StreamError("a length is negative")
        return cls(
            _field(line, "n", int),
            _field(line, "sha", str),
            _field(line, "source_sha", str, ""),
            samples,
            source_samples,
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """What ends an item that could not be made, for every later stage to hand on."""

    code: str
    message: str
    hint: str = ""

    @classmethod
    def of(cls, error: MusicToolError) -> Failure:
        """The failure that an error amounts to."""
        return cls(error.code, str(error), error.hint)

    def to_json(self) -> dict[str, Any]:
        """The failing line."""
        return {"fail": 1, "code": self.code, "message": self.message, "hint": self.hint}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Failure:
        """Read a failing line.

        Raises:
            StreamError: a field is of another type.
        """
        return cls(_field(line, "code", str, "failed"), _field(line, "message", str, ""), _field(line, "hint", str, ""))


class ItemFailed(MusicToolError):
    """Raised to whoever reads an item that an earlier stage gave up."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message, hint=failure.hint, code=failure.code)
        self.failure = failure


_SEAL_KEY = b',"seal":"'


def sealed(head_line: bytes, last_line: bytes) -> bytes:
    """Add a seal to the line that ends an item: a sha256 over both lines, so that no byte of either can change.

    Args:
        head_line: the head as it was written, with its line end.
        last_line: a closing or failing line without its line end.

    Returns:
        The line to write, with its line end.
    """
    seal = hashlib.sha256(head_line + last_line[:-1]).hexdigest().encode()
    return last_line[:-1] + _SEAL_KEY + seal + b'"}\n'


def is_seal_good(head_line: bytes, last_line: bytes) -> bool:
    """Whether a line that ends an item bears the seal of just these two lines."""
    body, key, rest = last_line.rpartition(_SEAL_KEY)
    return key != b"" and rest == hashlib.sha256(head_line + body).hexdigest().encode() + b'"}\n'


_REQUIRED: Any = object()


def _field(line: Mapping[str, Any], key: str, kind: type, default: Any = _REQUIRED) -> Any:
    """One field of a line, of the right type, or its default where there is none."""
    value = line.get(key, default)
    if value is _REQUIRED:
        raise StreamError(f"the line has no {key!r}")
    if value is not default and (not isinstance(value, kind) or isinstance(value, bool)):
        raise StreamError(f"{key!r} is no {kind.__name__}: {value!r:.40}")
    return value
