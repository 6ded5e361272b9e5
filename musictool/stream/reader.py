"""Reading a token stream: item by item in bounded memory, believing nothing that has not been checked.

A reader starts before the writer ends. It refuses what it does not know (version, kind, vocabulary), holds every item
to its count and digest, and says which item and which line is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from musictool.errors import InputError
from musictool.stream.records import (
    LINE_BYTES_MAX,
    Closing,
    CodeChunk,
    Failure,
    Head,
    ItemFailed,
    StreamError,
    is_seal_good,
)

CODE_MAX = 1 << 24
SCALE_MAX = 1e30
_NO_SCALES = np.zeros(0, np.float32)


def _plain_ids(line: bytes) -> NDArray[np.int64] | None:
    """The ids of a line of nothing else, several times as fast as a JSON parser; None for any other line.

    They are int64, so that one too large for an id is out of range rather than wrapped.
    """
    body = line[6:-3]
    if (
        not (line.startswith(b'{"t":[') and line.endswith(b"]}\n"))
        or not body[-1:].isdigit()
        or body.startswith(b",")
        or b",," in body
        or body.translate(None, b"0123456789,")
    ):
        return None
    return np.fromstring(body, np.int64, sep=",")


class Codebooks(Protocol):
    """What a reader asks of a codec: its fingerprint, and how many entries each of its codebooks has."""

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...


class Tokens(Codebooks, Protocol):
    """What a reader asks of a vocabulary: its fingerprint, its size, and the ids of names."""

    def ids(self, names: list[str]) -> NDArray[np.int32]: ...


Lookup = Callable[[Head], "Tokens | Codebooks | None"]
"""Finds the vocabulary or the codec that a head names, None where tokens can't be checked; raises InputError for an
unknown one."""


class StreamReader:
    """Bytes to items.

    Args:
        source: the plain bytes of a stream.
        lookup: finds vocabularies by name.
        context: what to call the stream in errors, a path say.
    """

    def __init__(self, source: BinaryIO, lookup: Lookup, context: str = "") -> None:
        self._source = source
        self._lookup = lookup
        self._context = context
        self._line_number = 0
        self._item = ""

    def __iter__(self) -> Iterator[ItemReader]:
        """The items in order; one must not be read after the next was asked for.

        Raises:
            StreamError: the stream breaks the rules.
        """
        number, of = 0, 0
        while True:
            head_line = self.read_line()
            if head_line is None:
                break
            line = self.parse(head_line)
            head = self._checked_head(line)
            if head.number is not None:
                if head.number != (number + 1 if number < of else 1):
                    raise self.error(f"item {number + 1} of {of} is missing" if number < of else "items are missing")
                number, of = head.number, head.of or head.number
            elif number < of:
                raise self.error(f"item {number + 1} of {of} is missing")
            item = ItemReader(self, head, self._vocabulary(head), head_line if "sealed" in line else b"")
            yield item
            item.skip()
        if self._line_number == 0:
            raise self.error("the stream is empty", hint="did the stage before this one fail?")
        if number < of:
            raise self.error(f"the stream ends after item {number} of {of}", hint="did the stage before this one fail?")

    def error(self, message: str, hint: str = "") -> StreamError:
        """An error at the current line."""
        where = [f"item {self._item!r}"] if self._item else []
        where += [f"line {max(self._line_number, 1)}"]
        return StreamError(message, context=", ".join([self._context, *where] if self._context else where), hint=hint)

    def read_line(self) -> bytes | None:
        """The next line with its line end, None at the end of the file."""
        line = self._source.readline(LINE_BYTES_MAX + 1)
        if not line:
            return None
        self._line_number += 1
        if len(line) > LINE_BYTES_MAX:
            raise self.error(f"a line of more than {LINE_BYTES_MAX >> 20} MiB")
        if not line.endswith(b"\n"):
            raise self.error("the stream ends inside a line", hint="did the stage before this one fail?")
        return line

    def parse(self, line: bytes) -> dict[str, Any]:
        """One line as an object."""
        try:
            parsed = orjson.loads(line)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            hint = "" if self._line_number > 1 else "a token stream is expected here: mtk tokenize makes one"
            raise self.error("no JSON object", hint=hint)
        return parsed

    def _checked_head(self, line: dict[str, Any]) -> Head:
        if "mtk" not in line:
            raise self.error("a head is expected", hint='an item begins with {"mtk":1,…}')
        self._item = line["item"][:80] if isinstance(line.get("item"), str) else ""
        try:
            return Head.from_json(line)
        except StreamError as error:
            raise self.error(error.message, error.hint) from None

    def _vocabulary(self, head: Head) -> Tokens | Codebooks | None:
        try:
            vocabulary = self._lookup(head)
        except InputError as error:
            raise self.error(error.message, error.hint) from None
        if vocabulary is not None and vocabulary.fingerprint != head.vocab_sha:
            is_codes = head.kind == "codes"
            raise self.error(
                f"{'codec' if is_codes else 'vocabulary'} {head.vocab[:40]!r} is another one: its fingerprint is "
                f"{head.vocab_sha[:12]!r}, ours {vocabulary.fingerprint[:12]!r}",
                hint=f"make the stream again with this {'codec' if is_codes else 'version'}",
            )
        return vocabulary


class ItemReader:
    """One item: its head at once, its tokens as they come, its closing line after them.

    Attributes:
        head: what began it.
        closing: what ended it; None before its tokens are read to the end.
        failure: why it was given up; None unless it was.
    """

    def __init__(
        self, stream: StreamReader, head: Head, vocabulary: Tokens | Codebooks | None, sealed_head: bytes
    ) -> None:
        self.head = head
        self.closing: Closing | None = None
        self.failure: Failure | None = None
        self._stream = stream
        self._vocabulary = vocabulary
        self._sealed_head = sealed_head
        self._rows: int | None = None
        self._digest = hashlib.sha256()
        self._count = 0
        self._scale_bytes = b""

    def chunks(self) -> Iterator[NDArray[np.int32]]:
        """The item's tokens, a line at a time: int32 [t] of events, int32 [K, frames] of codes.

        Raises:
            ItemFailed: an earlier stage gave the item up.
            StreamError: the stream breaks off, or breaks the rules, inside the item.
        """
        for tokens, _ in self._lines():
            yield tokens

    def code_chunks(self) -> Iterator[CodeChunk]:
        """The frames of an item of codes, a line at a time, with their scales.

        Raises:
            ItemFailed, StreamError: as `chunks`.
        """
        return self._lines()

    def _lines(self) -> Iterator[CodeChunk]:
        """The item's data lines from where it stands, checked; of events, ids and no scales."""
        while True:
            raw = self._stream.read_line()
            if raw is None:
                raise self._stream.error("the stream ends inside the item", "did the stage before this one fail?")
            plain = _plain_ids(raw) if self.head.kind == "events" else None
            if plain is not None:
                self._check_range(plain)
                tokens, scales = plain.astype(np.int32), _NO_SCALES
            else:
                line = self._stream.parse(raw)
                if "end" in line:
                    self._digest.update(self._scale_bytes)
                    self._close(line, self._count, self._digest.hexdigest())
                    self._check_seal(raw, line)
                    return
                if "fail" in line:
                    self._check_seal(raw, line)
                    self.failure = self._read(Failure, line)
                    raise ItemFailed(self.failure)
                if "mtk" in line:
                    raise self._stream.error("the next item begins inside this one: its end is missing")
                tokens, scales = self._tokens(line), self._scales(line)
                self._scale_bytes += scales.astype("<f4").tobytes()
            self._digest.update(np.ascontiguousarray(tokens.T, dtype="<i4").data)
            self._count += tokens.shape[-1]
            yield CodeChunk(tokens, scales)

    def skip(self) -> None:
        """Read the item to its end, checking it, unless that is done."""
        if self.closing is None and self.failure is None:
            try:
                for _ in self._lines():
                    pass
            except ItemFailed:
                pass

    def _tokens(self, line: dict[str, Any]) -> NDArray[np.int32]:
        """The tokens of a data line in any of its forms."""
        if self.head.kind == "codes":
            if "c" not in line:
                raise self._stream.error("no line of codes: it has neither 'c' nor 'end' nor 'fail'")
            return self._codes(line["c"])
        if "t" in line:
            ids = self._integers(line["t"], 1)
            self._check_range(ids)
            return ids
        if "w" not in line:
            raise self._stream.error("no line of events: it has neither 't' nor 'w' nor 'end' nor 'fail'")
        names = line["w"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self._stream.error("'w' is no list of names")
        vocabulary = cast("Tokens | None", self._vocabulary)  # the item's kind is events
        if vocabulary is None:
            raise self._stream.error("names need a vocabulary that is known here")
        try:
            return vocabulary.ids(names)
        except InputError as error:
            raise self._stream.error(error.message, error.hint) from None

    def _codes(self, rows: Any) -> NDArray[np.int32]:
        codes = self._integers(rows, 2)
        if self._rows not in (None, len(codes)):
            raise self._stream.error(f"{len(codes)} codebook rows after {self._rows}")
        self._rows = len(codes)
        size = CODE_MAX if self._vocabulary is None else len(self._vocabulary)
        if codes.size and not 0 <= (low := int(codes.min())) <= (high := int(codes.max())) < size:
            raise self._stream.error(
                f"code {low if low < 0 else high} is out of range: codebooks of {self.head.vocab[:40]!r} have "
                f"{size} entries"
            )
        return codes

    def _scales(self, line: dict[str, Any]) -> NDArray[np.float32]:
        """The scales beside the codes of a line."""
        if self.head.kind != "codes" or "scales" not in line:
            return _NO_SCALES
        values = line["scales"]
        if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
            raise self._stream.error("the scales are no list of numbers")
        scales = np.array(values, np.float64)
        if not ((scales > 0) & (scales <= SCALE_MAX)).all():
            raise self._stream.error("a scale is out of range")
        return scales.astype(np.float32)

    def _integers(self, value: Any, dimensions: int) -> NDArray[np.int32]:
        """A JSON value as an integer array, refused if it is anything else."""
        try:
            array = np.array(value)
        except ValueError:
            array = np.array(None)
        if array.size == 0 and isinstance(value, list) and array.ndim in (1, dimensions):
            return np.zeros((len(value), 0) if dimensions == 2 else 0, np.int32)
        if array.ndim != dimensions or array.dtype.kind != "i":
            raise self._stream.error(
                "the tokens are no list of integers" if dimensions == 1 else "the codes are no rows"
            )
        if not -(1 << 31) <= array.min() <= array.max() < 1 << 31:
            raise self._stream.error("a token is out of range")
        return array.astype(np.int32)

    def _check_range(self, ids: NDArray[np.int32] | NDArray[np.int64]) -> None:
        size = 1 << 31 if self._vocabulary is None else len(self._vocabulary)
        if len(ids) and not 0 <= (low := int(ids.min())) <= (high := int(ids.max())) < size:
            raise self._stream.error(
                f"token {low if low < 0 else high} is not in vocabulary {self.head.vocab!r} of {size} tokens"
            )

    def _close(self, line: dict[str, Any], count: int, sha: str) -> None:
        closing = self._read(Closing, line)
        if closing.count != count:
            raise self._stream.error(f"the item has {count} tokens where its end says {closing.count}")
        if closing.sha != sha:
            raise self._stream.error("the item's tokens are not those that were written: their sha256 differs")
        self.closing = closing

    def _check_seal(self, raw: bytes, line: dict[str, Any]) -> None:
        if (self._sealed_head or "seal" in line) and not is_seal_good(self._sealed_head, raw):
            self.closing = None
            raise self._stream.error("the item's head or end is not what was written: its seal does not fit")

    def _read(self, record: Any, line: dict[str, Any]) -> Any:
        try:
            return record.from_json(line)
        except StreamError as error:
            raise self._stream.error(error.message, error.hint) from None
