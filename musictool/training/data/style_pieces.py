"""The pieces of a style, wherever they lie: folders of MIDI files, lists of them, token corpora.

    for piece in read_pieces([Path("pop"), Path("classical.txt"), Path("more.parquet")]):
        print(piece.artist, piece.name, len(piece.score.notes))

Knows nothing of what they are read for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from musictool.errors import InputError
from musictool.metrics.note_files import MIDI_SUFFIXES
from musictool.symbolic.corpus import is_corpus_path
from musictool.symbolic.midi import read_midi
from musictool.symbolic.notes import Score
from musictool.symbolic.schemes import SCHEMES, Scheme, find_scheme
from musictool.training.data.splitting import read_list
from musictool.training.data.token_corpus import TokenCorpus, open_token_corpus

_NOBODY = "-"
_HINT = "a style is folders of MIDI files, text lists of them, or token corpora (.parquet)"


class StylePiece(NamedTuple):
    """A piece.

    Attributes:
        name: its place in its folder, list or corpus.
        artist: empty where nobody knows.
        score: what is played.
    """

    name: str
    artist: str
    score: Score


def read_pieces(paths: Iterable[Path]) -> Iterator[StylePiece]:
    """Read the pieces of a style.

    Args:
        paths: where they are. A folder is walked for MIDI files; the folder that a file lies in names its artist,
            unless it is the one given. A list (text) has the path of a file in each line, from the list's own folder,
            with or without the suffix. A token corpus (Parquet) calls a piece `artist/piece`. Nobody knows an artist
            called `-`.

    Raises:
        InputError: a file cannot be read.
        MissingError: a token corpus needs pyarrow.
    """
    for path in map(Path, paths):
        for piece in _pieces_of(path):
            yield piece._replace(artist="") if piece.artist == _NOBODY else piece


def no_piece(style: str, paths: Sequence[Path]) -> InputError:
    """What to raise where a style turns out to have no piece."""
    listed = ", ".join(map(str, paths))
    return InputError(f"style {style!r} has no piece", context=listed, hint=_HINT, code="empty-corpus")


def _pieces_of(path: Path) -> Iterator[StylePiece]:
    """The pieces of a folder, a list or a token corpus."""
    if is_corpus_path(path):
        return _pieces_of_corpus(path)
    if path.is_dir():
        return _pieces_of_files(_midi_files(path), path)
    return _pieces_of_files((_listed_file(path, line) for line in read_list(path)), path.parent)


def _midi_files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(MIDI_SUFFIXES) and not name.startswith("."):
                yield Path(root, name)


def _listed_file(path: Path, line: str) -> Path:
    """The file that a line of a list names."""
    named = path.parent / line
    for candidate in (named, *(named.with_name(named.name + suffix) for suffix in MIDI_SUFFIXES)):
        if candidate.is_file():
            return candidate
    raise InputError("a listed MIDI file is not there", context=f"{path}: {line[:80]}", hint=_HINT, code="no-such-file")


def _pieces_of_files(files: Iterable[Path], folder: Path) -> Iterator[StylePiece]:
    for file in files:
        name = Path(os.path.relpath(file, folder)).with_suffix("").as_posix()
        home = file.parent.resolve()
        yield StylePiece(name, "" if home == folder.resolve() else home.name, read_midi(file))


def _pieces_of_corpus(path: Path) -> Iterator[StylePiece]:
    scheme, corpus = _opened(path)
    for number, name in enumerate(corpus.names):
        yield StylePiece(name, Path(name).parent.name, scheme.decode([corpus.ids(number)]))


def _opened(path: Path) -> tuple[Scheme, TokenCorpus]:
    """A token corpus and its scheme, whichever it is of."""
    refusals = []
    for name in SCHEMES:
        scheme = find_scheme(name)
        try:
            return scheme, open_token_corpus([path], scheme.vocabulary)
        except InputError as error:
            if error.code != "wrong-vocabulary":
                raise
            refusals.append(error)
    raise refusals[0]
