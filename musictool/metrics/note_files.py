"""Notes out of files, and the reference that belongs to an item: what an evaluation reads.

A file is MIDI, a list of notes (`symbolic.note_tables`) or a token stream. Knows nothing of sound: whoever asks for the
kind of a file deals with `audio` itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

from musictool.audio.checks import AUDIO_SUFFIXES
from musictool.errors import InputError, MusicToolError, UsageError
from musictool.stream.files import STREAM_SUFFIXES, decompressing
from musictool.stream.reader import StreamReader
from musictool.stream.records import StreamError
from musictool.symbolic.midi import read_midi
from musictool.symbolic.note_tables import TABLE_SUFFIXES, read_note_table
from musictool.symbolic.notes import Score
from musictool.symbolic.schemes import Scheme, find_scheme, lookup_events
from musictool.symbolic.tokenization import decode_item

Kind = Literal["midi", "table", "stream", "audio"]

MIDI_SUFFIXES = (".mid", ".midi", ".kar", ".rmi", ".smf")
KIND_OF_SUFFIX: dict[str, Kind] = {
    **dict.fromkeys(MIDI_SUFFIXES, "midi"),
    **dict.fromkeys(TABLE_SUFFIXES, "table"),
    **dict.fromkeys(STREAM_SUFFIXES, "stream"),
    **dict.fromkeys(AUDIO_SUFFIXES, "audio"),
}
REFERENCE_SUFFIXES = (*MIDI_SUFFIXES, *TABLE_SUFFIXES, *STREAM_SUFFIXES)

_Items = dict[str, "Score | MusicToolError"]


def kind_of(path: Path, head: bytes) -> Kind:
    """What a file is: by its name if that tells, else by its first bytes, else sound.

    Args:
        path: the file.
        head: its first bytes, 12 at least if it has them.
    """
    _, suffix = split_suffix(path.name)
    if suffix:
        return KIND_OF_SUFFIX[suffix]
    if head.startswith(b"MThd") or (head.startswith(b"RIFF") and head[8:12] == b"RMID"):
        return "midi"
    return "stream" if head.startswith(b"{") else "audio"


def read_score(path: Path) -> Score:
    """Read a MIDI file, or a list of notes if its name ends as one.

    Raises:
        InputError: it cannot be read, or is neither.
    """
    if path.name.lower().endswith(TABLE_SUFFIXES):
        try:
            return Score(read_note_table(path.read_bytes(), str(path)))
        except OSError as error:
            raise InputError((error.strerror or "cannot be read").lower(), context=str(path)) from error
    return read_midi(path)


def stream_scores(
    source: BinaryIO, context: str, own: Scheme | None = None
) -> Iterator[tuple[str, Score | MusicToolError]]:
    """The items of a token stream, one after the other.

    Args:
        source: its bytes, unpacked.
        context: what to call it in errors.
        own: a scheme that only the caller knows, such as one from a MidiTok file.

    Yields:
        An item's name, and its score or why it has none.

    Raises:
        StreamError: the stream is broken.
    """
    for item in StreamReader(source, partial(lookup_events, own=own), context):
        scheme = own if own is not None and own.name == item.head.vocab else find_scheme(item.head.vocab)
        try:
            yield item.head.item, decode_item(item, scheme)
        except StreamError:
            raise
        except MusicToolError as error:
            yield item.head.item, error


class References:
    """Where the reference of an item is.

    Args:
        path: a folder, in which the reference of item `a/b` is the first of `a/b.mid`, `a/b.tsv` and so on that is
            there, or else of `b.mid`, `b.tsv`, …; a token stream, whose items are held in memory and found by name; or
            any other file, which is the reference of the one item there is.
        own: a scheme that only the caller knows.

    Raises:
        InputError: there is no such file, or the stream cannot be read.
    """

    def __init__(self, path: Path, own: Scheme | None = None) -> None:
        self._path = path
        self._own = own
        self._listings: dict[Path, dict[str, Path]] = {}
        self._is_taken = False
        try:
            path.stat()
        except OSError as error:
            raise InputError((error.strerror or "cannot be read").lower(), context=str(path)) from error
        self._items = _read_items(path, own) if path.is_file() and kind_of(path, b"") == "stream" else None

    def find(self, *names: str) -> Score | Path:
        """The reference of an item, or the file that it is in, for `read_score`.

        Args:
            names: what the item is called, the best name first.

        Raises:
            InputError: it has none, or one that cannot be read.
            UsageError: a second item asks for the one reference.
        """
        if self._path.is_dir():
            return self._in_folder(names)
        if self._items is not None and (len(self._items) > 1 or not self._items.keys().isdisjoint(names)):
            return _item_of(self._items, names, self._path)
        if self._is_taken:
            raise UsageError(
                "more than one item for one reference",
                context=str(self._path),
                hint="name a folder in which each item's reference has the item's name",
            )
        self._is_taken = True
        return self._path if self._items is None else _item_of(self._items, names, self._path)

    def _in_folder(self, names: Sequence[str]) -> Score | Path:
        for name in names:
            *folders, stem = name.split("/")
            inner = self._path.joinpath(*folders) if {"", ".", ".."}.isdisjoint(folders) else self._path
            for folder in (inner, self._path):
                path = self._listing(folder).get(stem)
                if path is not None and kind_of(path, b"") == "stream":
                    return _item_of(_read_items(path, self._own), names, path)
                if path is not None:
                    return path
        hint = f"{stem}.mid, .tsv, .csv, .txt or .mtk is looked for in {self._path}"
        raise InputError("there is no reference", hint=hint, code="no-reference")

    def _listing(self, folder: Path) -> dict[str, Path]:
        """The files of a folder that may be references, by stem; of several with one stem the first kind counts."""
        if folder not in self._listings:
            found: dict[str, tuple[int, str]] = {}
            for name in os.listdir(folder) if folder.is_dir() else ():
                stem, suffix = split_suffix(name)
                if suffix in REFERENCE_SUFFIXES:
                    rank = REFERENCE_SUFFIXES.index(suffix), name
                    found[stem] = min(found.get(stem, rank), rank)
            self._listings[folder] = {stem: folder / name for stem, (_, name) in found.items()}
        return self._listings[folder]


def split_suffix(name: str) -> tuple[str, str]:
    """A file's name without the suffix by which its kind is known, and that suffix in lower case."""
    suffix = next((suffix for suffix in KIND_OF_SUFFIX if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)], suffix


def _read_items(path: Path, own: Scheme | None) -> _Items:
    try:
        with open(path, "rb") as raw, decompressing(raw, str(path)) as plain:
            return dict(stream_scores(plain, str(path), own))
    except OSError as error:
        raise InputError((error.strerror or "cannot be read").lower(), context=str(path)) from error


def _item_of(items: _Items, names: Sequence[str], path: Path) -> Score:
    """The item of one of these names, or the only one there is."""
    called = [name for name in names if name in items] or (list(items) if len(items) == 1 else [])
    if not called:
        raise InputError("there is no reference", hint=f"{path} has no item of that name", code="no-reference")
    score = items[called[0]]
    if isinstance(score, MusicToolError):
        raise InputError(score.message, context=f"{path}, item {called[0]!r}", hint=score.hint, code=score.code)
    return score
