"""What `mtk generate` is to make, a wish at a time: lines of a file, lines as they are typed, pieces to go on from."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from musictool.cli.environment import Environment
from musictool.cli.files import Source
from musictool.cli.streams import input_error_from
from musictool.errors import InputError, MusicToolError
from musictool.inference.generation import PROMPT, check_request, check_taken
from musictool.inference.generation_options import LINE_CHARACTERS_MAX, read_prompts
from musictool.stream.files import decompressing, is_stream_path
from musictool.stream.reader import CODE_MAX, StreamReader
from musictool.stream.records import ItemFailed, StreamError
from musictool.symbolic.midi import read_midi
from musictool.symbolic.schemes import find_scheme, lookup_events
from musictool.symbolic.tokenization import STREAM_START, decode_item

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musictool.inference.codec_choice import Codebooks
    from musictool.inference.generation import Generator as Model
    from musictool.inference.generation_options import Prompt, Request
    from musictool.stream.reader import ItemReader, Tokens
    from musictool.stream.records import Head


@dataclass(frozen=True)
class Wish:
    """A request, and what it goes on from.

    Attributes:
        request: what the piece is to be like.
        number, of: its place among all, from 1; None where that is not known.
        name: of what it goes on from; empty where there is nothing.
        prompt: that, int32 [t] ids or [K, t] codes.
        head: its head, if it was an item of a stream.
        source_sha: its digest.
        error: why there is none.
    """

    request: Request
    number: int | None = None
    of: int | None = None
    name: str = ""
    prompt: NDArray[np.int32] | None = None
    head: Head | None = None
    source_sha: str = ""
    error: MusicToolError | None = None

    @property
    def is_alone(self) -> bool:
        """Whether the run stands and falls with it."""
        return self.of == 1


def written(prompts: Sequence[Prompt], request: Request, model: Model) -> Iterator[Wish]:
    """The wishes in the lines of a file, all of which are looked at first.

    Args:
        prompts: the lines.
        request: what is asked for where a line says nothing.
        model: what is to make them.

    Raises:
        UsageError: a line asks for what the model does not take, or a number is out of range.
    """
    requests = [prompt.request(request, model.words_are) for prompt in prompts]
    for prompt, one in zip(prompts, requests, strict=True):
        with _naming(prompt.where):
            check_request(model, one)
    for number, one in enumerate(requests, 1):
        yield Wish(one, number, len(requests))


def typed(environment: Environment, request: Request, model: Model) -> Iterator[Wish]:
    """A wish for each line of standard input, up to an empty one or the end.

    Args:
        environment: a terminal there is asked.
        request: what is asked for beside the words.
        model: what is to make them.
    """
    while True:
        if environment.is_stdin_terminal:
            environment.stderr.write(f"{model.words_are}> ")
            environment.stderr.flush()
        line = environment.stdin.readline(LINE_CHARACTERS_MAX + 1)
        if not line.strip():
            return
        try:
            for prompt in read_prompts([line], "standard input"):
                one = prompt.request(request, model.words_are)
                check_request(model, one)
                yield Wish(one)
        except MusicToolError as error:
            yield Wish(request, error=error)


def begun(
    sources: Sequence[Source], request: Request, model: Model, environment: Environment, *, may_be_none: bool
) -> Iterator[Wish]:
    """A wish for each piece that there is to go on from.

    Args:
        sources: token streams and MIDI files.
        request: what is asked for.
        model: what is to go on.
        environment: holds standard input.
        may_be_none: whether an empty standard input is nothing to go on from, and no broken stream.

    Raises:
        InputError: the only source cannot be read, or a stream breaks off; after the wishes before that, and, of
            several sources, after all others.
    """
    check_taken(model, PROMPT)
    are_single = all(source.path is not None and not is_stream_path(source.path) for source in sources)
    broken: StreamError | None = None
    for number, source in enumerate(sources, 1):
        place, of = (number, len(sources)) if are_single else (None, None)
        context = str(source.path or "standard input")
        try:
            with _opened(source, environment, context) as plain:
                start = plain.peek(1)[:1]
                if not start and source.path is None and may_be_none:
                    yield Wish(request, 1, 1)
                elif start == STREAM_START or (not start and source.path is None):
                    yield from _items(plain, request, model, context, is_only=len(sources) == 1)
                else:
                    yield Wish(request, place, of, source.name, _ids_of_midi(plain.read(), model, context))
        except (InputError, OSError) as error:
            if len(sources) == 1:
                raise
            if isinstance(error, StreamError):
                environment.item_failed(source.name, error)
                broken = error
            else:
                reason = error if isinstance(error, InputError) else input_error_from(error)
                yield Wish(request, place, of, source.name, error=reason)
    if broken is not None:
        raise broken


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Say where what is wrong was asked for."""
    try:
        yield
    except MusicToolError as error:
        error.context = error.context or where
        raise


@contextmanager
def _opened(source: Source, environment: Environment, context: str) -> Generator[BufferedReader, None, None]:
    """The plain bytes of a source."""
    if source.error is not None:
        raise source.error
    if source.path is None:
        with decompressing(environment.stdin, context) as plain:
            yield plain
        return
    with open(source.path, "rb") as raw, decompressing(cast(BinaryIO, raw), context) as plain:
        yield plain


def _ids_of_midi(data: bytes, model: Model, context: str) -> NDArray[np.int32]:
    """A MIDI file in the model's own words.

    Raises:
        InputError: it is none, or the model knows no notes.
    """
    if model.kind != "events":
        hint = _how_to_encode(model)
        raise InputError("no token stream, and the model goes on from codes", context=context, hint=hint)
    try:
        return find_scheme(model.vocab).encode(read_midi(data))
    except InputError as error:
        error.context = error.context or context
        raise


def _items(plain: BinaryIO, request: Request, model: Model, context: str, *, is_only: bool) -> Iterator[Wish]:
    """A wish to go on from each item of a stream."""
    for item in StreamReader(plain, partial(_lookup, model=model), context):
        head = item.head
        number, of = (head.number, head.of) if is_only else (None, None)
        try:
            prompt = _prompt(item, model)
        except StreamError:
            raise
        except (InputError, ItemFailed) as error:
            yield Wish(request, number, of, head.item, head=head, error=error)
        else:
            assert item.closing is not None
            yield Wish(request, number, of, head.item, prompt, head, item.closing.sha)


def _lookup(head: Head, model: Model) -> Tokens | Codebooks:
    """What an item is checked by.

    Raises:
        InputError: the model cannot go on from such.
    """
    from musictool.inference.codec_choice import Codebooks

    if model.kind == "events":
        return lookup_events(head)
    if head.kind != "codes":
        raise InputError("the item holds notes, and the model goes on from codes", hint=_how_to_encode(model))
    return Codebooks(model.vocab_sha, CODE_MAX)


def _how_to_encode(model: Model) -> str:
    return f"make some of sound: mtk encode --model {model.vocab}"


def _prompt(item: ItemReader, model: Model) -> NDArray[np.int32]:
    """An item in the model's own words."""
    if model.kind == "codes":
        chunks = list(item.chunks())
        if not chunks:
            raise InputError("there are no codes to go on from")
        return np.concatenate(chunks, axis=1)
    if item.head.vocab == model.vocab:
        return np.concatenate([np.zeros(0, np.int32), *item.chunks()])
    return find_scheme(model.vocab).encode(decode_item(item, find_scheme(item.head.vocab)))
