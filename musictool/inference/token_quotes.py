"""What pieces have in common with corpora: the longest run of tokens, and the longest of notes in any key.

Of codes the tokens are those of the first codebook, which say the most: a run of all would end with the least of
differences. Pieces are held, corpora a block at a time. Knows no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from musictool.errors import InputError
from musictool.inference.token_pieces import TokenPiece
from musictool.metrics.common_runs import CommonRun, RunSearch, note_symbols
from musictool.symbolic.schemes import find_scheme
from musictool.symbolic.score_meta import assemble

RUN_METRICS = ("longest_run_tokens", "longest_run_notes")
BLOCK_TOKENS = 1 << 20

_Sequence = NDArray[np.integer]


class Vocabulary(NamedTuple):
    """What tokens are of: a vocabulary's or codec's name and fingerprint."""

    name: str
    sha: str


@dataclass(frozen=True)
class Quote:
    """What a piece has in common with a corpus.

    Attributes:
        tokens: how many in a row.
        at: the first of them in the piece.
        source: the piece of the corpus that has them too; empty if there is none.
        source_at: the first of them there.
        notes: how many in a row, in whatever key; None of codes.
        notes_source: the piece of the corpus that has them too; empty if there is none.
    """

    tokens: int
    at: int
    source: str
    source_at: int
    notes: int | None = None
    notes_source: str = ""


class Quotes:
    """The longest common runs of some pieces, which are added first, with others."""

    def __init__(self) -> None:
        self._vocabulary: Vocabulary | None = None
        self._is_of_notes = False
        self._tokens: list[_Sequence] = []
        self._notes: list[_Sequence] = []
        self._owners: list[int] = []  # of what each of `_notes` is a part
        self._sources: list[str] = []
        self._source_owners: list[int] = []

    @property
    def pieces(self) -> int:
        """How many pieces of corpora have been looked through."""
        return len(self._sources)

    def add(self, piece: TokenPiece) -> None:
        """Take in a piece, before any corpus has been looked through.

        Raises:
            InputError: it is of another vocabulary than those before it, or makes no sense.
        """
        self.check(piece)
        notes = _notes_of(piece)
        self._is_of_notes = piece.head.kind == "events"
        self._owners += [len(self._tokens)] * len(notes)
        self._tokens.append(_first_row(piece))
        self._notes += notes

    def look_through(self, pieces: Iterable[TokenPiece]) -> None:
        """Look for runs in a corpus.

        Raises:
            InputError: a piece of it is of another vocabulary, or makes no sense.
        """
        block: list[TokenPiece] = []
        held = 0
        for piece in pieces:
            self.check(piece)
            block.append(piece)
            held += len(piece)
            if held >= BLOCK_TOKENS:
                self._look_through(block)
                block, held = [], 0
        self._look_through(block)

    @property
    def found(self) -> list[Quote]:
        """What has been found so far, in the order of the pieces."""
        tokens, notes = self._searches
        longest = [CommonRun()] * len(self._tokens)
        for owner, run in zip(self._owners, notes.longest, strict=True):
            longest[owner] = max(longest[owner], run, key=lambda run: run.length)
        return [self._quote(*runs) for runs in zip(tokens.longest, longest, strict=True)]

    def _quote(self, tokens: CommonRun, notes: CommonRun) -> Quote:
        source = "" if tokens.source < 0 else self._sources[tokens.source]
        quote = Quote(tokens.length, tokens.start, source, tokens.source_start)
        if not self._is_of_notes:
            return quote
        source = "" if notes.source < 0 else self._sources[self._source_owners[notes.source]]
        return replace(quote, notes=notes.length + 1 if notes.length else 0, notes_source=source)

    def _look_through(self, pieces: Sequence[TokenPiece]) -> None:
        tokens, notes = self._searches
        tokens.look_through([_first_row(piece) for piece in pieces])
        parts = [(number, part) for number, piece in enumerate(pieces) for part in _notes_of(piece)]
        notes.look_through([part for _, part in parts])
        self._source_owners += [len(self._sources) + number for number, _ in parts]
        self._sources += [piece.name for piece in pieces]

    @cached_property
    def _searches(self) -> tuple[RunSearch, RunSearch]:
        """For tokens and for notes, once all pieces are there."""
        return RunSearch(self._tokens), RunSearch(self._notes)

    def check(self, piece: TokenPiece) -> None:
        """Refuse tokens that can't be compared with those of the first piece that was looked at.

        Raises:
            InputError: they are of another vocabulary.
        """
        theirs = _vocabulary_of(piece)
        ours = self._vocabulary = self._vocabulary or theirs
        if theirs != ours:
            message = f"tokens of {theirs.name[:40]!r} ({theirs.sha[:8]}) beside those of {ours.name[:40]!r}"
            hint = "compare tokens of one vocabulary or codec: mtk tokenize writes others"
            raise InputError(f"{message} ({ours.sha[:8]})", context=piece.name, hint=hint, code="other-tokens")


def _vocabulary_of(piece: TokenPiece) -> Vocabulary:
    return Vocabulary(piece.head.vocab, piece.head.vocab_sha)


def _first_row(piece: TokenPiece) -> _Sequence:
    """Ids, or the codes of the first codebook."""
    return piece.tokens[0] if len(piece.tokens) else np.zeros(0, np.int32)


def _notes_of(piece: TokenPiece) -> list[NDArray[np.int64]]:
    """What each instrument of a piece of notes plays; nothing of codes.

    Raises:
        InputError: its ids or its meta make no sense.
    """
    if piece.head.kind != "events":
        return []
    scheme = find_scheme(piece.head.vocab)
    return note_symbols(assemble(scheme.decode([piece.tokens[0]]), piece.head.meta))
