"""The pieces of `mtk eval tokens`: read one after the other, those that fail named and remembered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from musictool.cli.environment import Environment
from musictool.cli.files import Source, expand_inputs
from musictool.cli.streams import input_error_from
from musictool.commands.eval_items import Items
from musictool.errors import InputError, MusicToolError
from musictool.stream.files import STREAM_SUFFIXES
from musictool.stream.records import StreamError

if TYPE_CHECKING:
    from musictool.inference.token_pieces import Read, TokenPiece


def find_tokens(arguments: Sequence[str] | None, environment: Environment) -> list[Source]:
    """Streams and corpora, as `expand_inputs` finds them."""
    from musictool.symbolic.corpus import CORPUS_SUFFIX

    return expand_inputs(arguments, (*STREAM_SUFFIXES, CORPUS_SUFFIX), environment)


class TokenItems:
    """The pieces of a run.

    Args:
        sources: streams and corpora.
        environment: where failures are told.
        limit: pieces at most; None for all.
        backing: streams and corpora with what sounds beside the pieces, under their names and in their order.

    Attributes:
        failed: the items that could not be judged, and why a stream could not be read to its end.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        environment: Environment,
        limit: int | None = None,
        backing: Sequence[Source] | None = None,
    ) -> None:
        self.failed = Items(environment, None)
        self._sources = sources
        self._environment = environment
        self._limit = limit
        self._backing = None if backing is None else _Backing(backing, environment)

    def pieces(self) -> Iterator[TokenPiece]:
        """Every piece, read as it is asked for.

        Raises:
            InputError: the only input is no corpus, or cannot be opened.
            MissingError: a corpus needs pyarrow.
        """
        return islice(self._all(), self._limit)

    def _all(self) -> Iterator[TokenPiece]:
        for source in self._sources:
            is_alone = len(self._sources) == 1
            try:
                for name, piece in read_source(source, self._environment):
                    found = piece if self._backing is None else self._backing.beside(piece)
                    if isinstance(found, MusicToolError):
                        self.failed.fail(name, found)
                    else:
                        yield found
            except StreamError as error:
                if not is_alone:
                    self._environment.item_failed(source.name, error)
                self.failed.broken = error
            except InputError as error:
                if is_alone:
                    raise
                self.failed.fail(source.name, error)


def read_source(source: Source, environment: Environment) -> Iterator[Read]:
    """What there is in one input.

    Raises:
        StreamError: it is a stream, and broken.
        InputError: it is a corpus, and none; or it cannot be read.
        MissingError: a corpus needs pyarrow.
    """
    from musictool.inference.token_pieces import corpus_pieces, stream_pieces
    from musictool.symbolic.corpus import is_corpus_path

    if source.error is not None:
        raise source.error
    if source.path is None:
        yield from stream_pieces(environment.stdin, "standard input")
    elif is_corpus_path(source.path):
        yield from corpus_pieces(source.path)
    else:
        try:
            with open(source.path, "rb") as file:
                yield from stream_pieces(file, str(source.path))
        except OSError as error:
            raise input_error_from(error) from error


class _Backing:
    """What sounds beside pieces, read along with them."""

    def __init__(self, sources: Sequence[Source], environment: Environment) -> None:
        self._reads = (read for source in sources for read in read_source(source, environment))

    def beside(self, piece: TokenPiece | MusicToolError) -> TokenPiece | MusicToolError:
        """A piece with its backing, or why it has none."""
        if isinstance(piece, MusicToolError):
            return piece
        for name, backing in self._reads:
            if name == piece.name:
                return backing if isinstance(backing, MusicToolError) else replace(piece, beside=backing.tokens)
        hint = "a backing has the names of the pieces, and their order"
        return InputError("there is no backing for it", context=piece.name, hint=hint, code="no-backing")


def pieces_of(sources: Sequence[Source], environment: Environment) -> Iterator[TokenPiece]:
    """The pieces of streams and corpora, without those that failed.

    Raises:
        InputError: one cannot be read.
        MissingError: a corpus needs pyarrow.
    """
    for source in sources:
        for _, piece in read_source(source, environment):
            if not isinstance(piece, MusicToolError):
                yield piece
