"""MIDI files and token streams to items of tokens: what `mtk tokenize` does with one input.

One input gives one item and its variations, or, if it is a stream, one item for each of its own. An input that cannot
be read gives a failed item. Knows nothing of command lines.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from musictool import __version__
from musictool.errors import InputError, MusicToolError, UsageError
from musictool.stream.files import decompressing
from musictool.stream.reader import ItemReader, StreamReader
from musictool.stream.records import Failure, Head, ItemFailed, StreamError
from musictool.stream.writer import StreamWriter
from musictool.symbolic.augment import Augmentation, augmented
from musictool.symbolic.midi import read_midi
from musictool.symbolic.notes import Score
from musictool.symbolic.schemes import MIDITOK_PREFIX, Scheme, find_scheme, lookup_events
from musictool.symbolic.score_meta import assemble, meta_of
from musictool.symbolic.vocabulary import Ids, Vocabulary

STREAM_START = b"{"


@dataclass(frozen=True)
class Tokenization:
    """What to do with every input.

    Attributes:
        scheme: name of the scheme.
        style: a style token to begin each item with.
        augmentation: how far variations may go.
        copies: variations beside each original.
        seed: where their draws begin; each item's depend on this, its content and its number alone.
        source_scheme: how to read streams whose vocabulary only a file knows (`miditok:FILE.json`).
    """

    scheme: str = "tatum"
    style: int | None = None
    augmentation: Augmentation | None = None
    copies: int = 0
    seed: int = 0
    source_scheme: str | None = None

    def provenance(self, drawn: Mapping[str, Any] | None) -> dict[str, Any]:
        """This stage's entry in an item's `made`."""
        entry: dict[str, Any] = {"command": "tokenize", "version": __version__, "scheme": self.scheme}
        if self.style is not None:
            entry["style"] = self.style
        if drawn is not None:
            entry.update(seed=self.seed, augment=dict(drawn))
        return entry


@dataclass(frozen=True)
class Item:
    """One item: its head, and its ids or why there are none.

    Attributes:
        head: what begins it.
        ids: int32 [t]; empty if it failed.
        source_sha: sha256 of what it was made from, in hexadecimal.
        failure: why it failed.
        is_unreadable: whether nothing of the input could be read.
    """

    head: Head
    ids: Ids
    source_sha: str = ""
    failure: Failure | None = None
    is_unreadable: bool = False

    def write(self, writer: StreamWriter) -> None:
        """Write the item to a stream."""
        if self.failure is not None:
            writer.failed(self.head, self.failure)
            return
        with writer.item(self.head) as item:
            item.source_sha = self.source_sha
            item.write(self.ids)

    def lines(self, names: Vocabulary | None = None) -> bytes:
        """The item as lines of a stream, with tokens by the names of a vocabulary if one is given."""
        buffer = io.BytesIO()
        self.write(StreamWriter(buffer, is_live=False, names=names))
        return buffer.getvalue()


def check_style(scheme: Scheme, style: int | None) -> None:
    """Refuse a style that the scheme has no token for.

    Raises:
        UsageError: the vocabulary has no such token.
    """
    if style is not None and f"Style_{style}" not in scheme.vocabulary.token_names:
        raise UsageError(
            f"scheme {scheme.name} has no token Style_{style}", hint="mtk tokenize --show-vocab lists them"
        )


def tokenize_midi(name: str, data: bytes, options: Tokenization) -> Iterator[Item]:
    """The item of a MIDI file and its variations; if it cannot be read, as many failed items."""
    scheme = find_scheme(options.scheme)
    sha = hashlib.sha256(data).hexdigest()
    try:
        score = read_midi(data)
    except MusicToolError as error:
        yield from failed_items(name, options, error)
        return
    yield from _items_of(Head(name, "events", scheme.name, scheme.vocabulary.fingerprint), score, sha, scheme, options)


def tokenize_stream(source: BinaryIO, options: Tokenization, context: str) -> Iterator[Item]:
    """The items of a token stream in another scheme, and their variations.

    Raises:
        StreamError: the stream is broken; the item it broke in has been given as failed.
    """
    scheme = find_scheme(options.scheme)
    own = find_scheme(options.source_scheme) if options.source_scheme else None
    if own is None and options.scheme.startswith(MIDITOK_PREFIX):
        own = scheme
    for item in StreamReader(source, partial(lookup_events, own=own), context):
        head = replace(item.head, vocab=scheme.name, vocab_sha=scheme.vocabulary.fingerprint, meta={})
        try:
            source_scheme = own if own is not None and own.name == item.head.vocab else find_scheme(item.head.vocab)
            score = decode_item(item, source_scheme)
            yield from _items_of(head, score, _sha_of(item), scheme, options)
        except MusicToolError as error:
            yield Item(_with_stage(head, options, None), np.zeros(0, np.int32), failure=failure_of(error))
            if isinstance(error, StreamError):
                raise


def tokenize_file(name: str, raw: BinaryIO, options: Tokenization, context: str) -> Iterator[Item]:
    """The items of one input, MIDI or a token stream: its first byte tells.

    Raises:
        StreamError: as `tokenize_stream`.
    """
    with decompressing(raw, context) as plain:
        if plain.peek(1)[:1] == STREAM_START:
            yield from tokenize_stream(plain, options, context)
        else:
            yield from tokenize_midi(name, plain.read(), options)


def tokenize_path(name: str, path: Path, options: Tokenization) -> Iterator[Item]:
    """The items of one file, as `tokenize_file`; a file that can't be opened gives failed items."""
    try:
        with open(path, "rb") as raw:
            yield from tokenize_file(name, raw, options, str(path))
    except OSError as error:
        message = (error.strerror or "cannot be read").lower()
        yield from failed_items(name, options, InputError(message, context=str(path), code="unreadable-file"))


def decode_item(item: ItemReader, scheme: Scheme) -> Score:
    """The score of an item of a stream.

    Raises:
        ItemFailed: an earlier stage gave the item up.
        InputError: its tokens or its meta make no sense.
    """
    return assemble(scheme.decode(item.chunks()), item.head.meta)


def failed_items(name: str, options: Tokenization, error: MusicToolError) -> Iterator[Item]:
    """What an input of which nothing could be read gives: every item that it would have made, failed."""
    scheme = find_scheme(options.scheme)
    for copy in range(options.copies + 1):
        head = Head(variation_name(name, copy), "events", scheme.name, scheme.vocabulary.fingerprint)
        none = np.zeros(0, np.int32)
        yield Item(_with_stage(head, options, None), none, failure=failure_of(error), is_unreadable=True)


def variation_name(name: str, copy: int) -> str:
    """The name of an item's variation; number 0 is the item itself."""
    return f"{name}~{copy}" if copy else name


def failure_of(error: MusicToolError) -> Failure:
    """What to hand on of an error: an earlier stage's own words, or ours."""
    return error.failure if isinstance(error, ItemFailed) else Failure.of(error)


def _items_of(head: Head, score: Score, source_sha: str, scheme: Scheme, options: Tokenization) -> Iterator[Item]:
    yield _item(head, score, source_sha, scheme, options, None)
    if options.augmentation is not None:
        for copy in range(1, options.copies + 1):
            generator = np.random.default_rng([options.seed, copy, *bytes.fromhex(source_sha)])
            variation, drawn = augmented(score, options.augmentation, generator)
            named = replace(head, item=variation_name(head.item, copy))
            yield _item(named, variation, source_sha, scheme, options, drawn)


def _item(
    head: Head, score: Score, source_sha: str, scheme: Scheme, options: Tokenization, drawn: Mapping[str, Any] | None
) -> Item:
    head = _with_stage(head, options, drawn)
    try:
        ids = scheme.encode(score)
    except MusicToolError as error:
        return Item(head, np.zeros(0, np.int32), failure=failure_of(error))
    if options.style is not None:
        ids = np.append(np.int32(scheme.vocabulary.id("Style", options.style)), ids)
    return Item(replace(head, meta=meta_of(score)), ids, source_sha)


def _with_stage(head: Head, options: Tokenization, drawn: Mapping[str, Any] | None) -> Head:
    return replace(head, made=(*head.made, options.provenance(drawn)))


def _sha_of(item: ItemReader) -> str:
    return item.closing.sha if item.closing is not None else ""
