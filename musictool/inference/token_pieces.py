"""Pieces as tokens, one after the other out of a token stream or a Parquet corpus: ids of events, or a codec's codes.

A piece is held as a whole and only as long as it is asked for; of a corpus, a few rows more. Knows what tokens are, and
nothing of what they are read for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from musictool.errors import InputError, MusicToolError
from musictool.stream.files import decompressing
from musictool.stream.reader import ItemReader, StreamReader
from musictool.stream.records import KINDS, Head, StreamError
from musictool.symbolic.corpus import load_pyarrow
from musictool.symbolic.schemes import lookup_events
from musictool.symbolic.vocabulary import Vocabulary

ROWS_A_BATCH = 16

_TEXTS = ("item", "kind", "vocab", "vocab_sha", "meta")
_HINT = "mtk tokenize or mtk encode with -o corpus.parquet makes one"


@dataclass(frozen=True, eq=False)
class TokenPiece:
    """A piece.

    Attributes:
        head: of its item, or what its row says that one would.
        tokens: int32 [K, n]: K codes a frame, or ids of events, of which K is 1.
        beside: int32 [K, m], codes that sound at the same time, such as a backing; None where none are known.
    """

    head: Head
    tokens: NDArray[np.int32]
    beside: NDArray[np.int32] | None = None

    @property
    def name(self) -> str:
        return self.head.item

    @property
    def text(self) -> str:
        """What is said of it; empty for nothing."""
        text = self.head.meta.get("text")
        return text if isinstance(text, str) else ""

    def __len__(self) -> int:
        return self.tokens.shape[1]


class Read(NamedTuple):
    """What became of one item: its piece, or why there is none."""

    name: str
    piece: TokenPiece | MusicToolError


def stream_pieces(source: BinaryIO, context: str) -> Iterator[Read]:
    """The pieces of a token stream.

    Args:
        source: its bytes, packed or not.
        context: what to call it in errors.

    Raises:
        StreamError: the stream is broken.
    """
    with decompressing(source, context) as plain:
        for item in StreamReader(plain, _lookup, context):
            try:
                found: TokenPiece | MusicToolError = TokenPiece(item.head, _tokens_of(item))
            except StreamError:
                raise
            except MusicToolError as error:
                found = error
            yield Read(item.head.item, found)


def corpus_pieces(path: Path) -> Iterator[Read]:
    """The pieces of a Parquet corpus, in their order.

    Raises:
        MissingError: pyarrow is not installed.
        InputError: the file is no corpus of tokens, or broken.
    """
    arrow, parquet = load_pyarrow()
    try:
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as corpus:
            _check_columns(arrow, corpus.schema_arrow, path)
            more = [name for name in ("codebooks",) if name in corpus.schema_arrow.names]
            columns = [*_TEXTS, "ids", "n", *more]
            for batch in corpus.iter_batches(batch_size=ROWS_A_BATCH, columns=columns, use_threads=False):
                for number in range(batch.num_rows):
                    row = {name: batch.column(name)[number].as_py() for name in columns if name != "ids"}
                    ids = batch.column("ids")[number].values
                    yield _read_row(row, np.zeros(0, np.int32) if ids is None else ids.to_numpy(zero_copy_only=False))
    except (arrow.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or ["cannot be read"])[0].rstrip(".")
        message = f"broken Parquet file: {reason}"
        raise InputError(message, context=str(path), hint="mtk validate tells more", code="corrupt-corpus") from error


def _lookup(head: Head) -> Vocabulary | None:
    """The vocabulary of an item; codes have none that is known here."""
    return lookup_events(head) if head.kind == "events" else None


def _tokens_of(item: ItemReader) -> NDArray[np.int32]:
    """All tokens of an item, int32 [K, n].

    Raises:
        ItemFailed, StreamError: as `ItemReader.chunks`.
    """
    chunks = [np.atleast_2d(chunk) for chunk in item.chunks()]
    return np.concatenate(chunks, axis=1) if chunks else np.zeros((0, 0), np.int32)


def _check_columns(arrow: Any, schema: Any, path: Path) -> None:
    """Refuse a Parquet file that is no corpus of tokens."""
    types = arrow.types
    kinds = dict(zip(schema.names, schema.types))

    def is_right(name: str, kind: Any) -> bool:
        if name == "ids":
            return (types.is_list(kind) or types.is_large_list(kind)) and types.is_int32(kind.value_type)
        if name == "n":
            return bool(types.is_integer(kind))
        return bool(types.is_string(kind) or types.is_large_string(kind))

    for name in (*_TEXTS, "ids", "n"):
        if name not in kinds or not is_right(name, kinds[name]):
            found = f"it is {kinds[name]}" if name in kinds else "no such column"
            raise InputError(f"no token corpus: column {name!r}: {found}", context=str(path), hint=_HINT)


def _read_row(row: dict[str, Any], ids: NDArray[np.int32]) -> Read:
    """A row as a piece, or why it is none."""
    name = row["item"] or "?"
    meta: Any = None
    with suppress(ValueError):
        meta = orjson.loads(row["meta"] or "{}")
    if row["kind"] not in KINDS or not isinstance(meta, dict):
        return Read(name, InputError("the row says nothing that can be read of its tokens", context=name))
    head = Head(name, row["kind"], row["vocab"] or "", row["vocab_sha"] or "", meta)
    if head.kind == "events":
        return _read_events(head, ids)
    codebooks = row.get("codebooks") or 0
    if codebooks < 1 or len(ids) != codebooks * (row["n"] or 0):
        message = f"{len(ids)} codes are no {row['n']} frames of {codebooks} codebooks"
        return Read(name, InputError(message, context=name, code="corrupt-corpus"))
    return Read(name, TokenPiece(head, np.ascontiguousarray(ids.reshape(-1, codebooks).T)))


def _read_events(head: Head, ids: NDArray[np.int32]) -> Read:
    """A row of events as a piece, if its vocabulary is known here and the ids are in it."""
    try:
        vocabulary = lookup_events(head)
    except InputError as error:
        return Read(head.item, error)
    if vocabulary.fingerprint != head.vocab_sha:
        message = f"vocabulary {head.vocab[:40]!r} is another one: its fingerprint differs"
        return Read(head.item, InputError(message, context=head.item, code="wrong-vocabulary"))
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(vocabulary):
        message = f"a token is not in vocabulary {head.vocab!r} of {len(vocabulary)} tokens"
        return Read(head.item, InputError(message, context=head.item, code="corrupt-corpus"))
    return Read(head.item, TokenPiece(head, ids[None]))
