"""Pieces made by a model, of whichever family: what a family has to give, and which family gives it where.

A request is understood once, and then made as many times as is asked for, several pieces side by side. Chunks leave as
they are made. Knows no model, no file and no command line, and imports torch when a model is opened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from musictool.checkpoints.store import Store
from musictool.errors import UsageError
from musictool.inference.generation_options import Drawing, Request, listed, option_of
from musictool.stream.records import Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from musictool.inference.model_files import LoadedModel
    from musictool.inference.precision import PrecisionName

DEFAULT_MODEL = "symbolic-generator"
FAMILIES = {
    "symbolic-generator": "musictool.inference.symbolic_generation",
    "musicgen": "musictool.inference.musicgen_generation",
    "personaljazz": "musictool.inference.personaljazz_generation",
    "saxgpt": "musictool.inference.saxgpt_generation",
}
"""Where each family's `open_generator(loaded, setup)` is."""

PROMPT, GUIDANCE = "prompt", "guidance"


def _say_nothing(message: str, *, context: str = "", hint: str = "", code: str = "") -> None:
    """Where nobody listens to warnings."""


@dataclass(frozen=True)
class Setup:
    """Where and how a generator runs.

    Attributes:
        store: where models are: its own, its codec, what reads its conditions.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: of its numbers.
        warn: told what a user should know although the work goes on.
    """

    store: Store
    device: str = "auto"
    precision: PrecisionName = "fp32"
    warn: Callable[..., None] = _say_nothing


@dataclass(frozen=True)
class Planned:
    """A request that a generator has understood.

    Attributes:
        request: what was asked for.
        conditions: what the generator makes of it, for itself alone.
        prompt: what pieces begin with, int32 [t] ids or [K, t] codes; None for nothing.
        meta: what the head of an item says in `meta`.
        made: what it says in `made`, beside the request and how ids are drawn, or in place of it.
        seconds: how long what is made will last; 0 where that is not known.
        samples: of codes: how long the sound will be, at the codec's rate and with the prompt.
    """

    request: Request
    conditions: Any
    prompt: NDArray[np.int32] | None
    meta: Mapping[str, Any]
    made: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    samples: int | None = None


class Piece(NamedTuple):
    """A piece to make: its number among all of a run, from 0, which its draws depend on, and what it is to be."""

    number: int
    plan: Planned


class Chunk(NamedTuple):
    """The next of a piece.

    Attributes:
        row: which of the pieces side by side it is of.
        tokens: int32 [t] ids or [K, t] codes, perhaps none.
        is_last: whether the piece ends with it.
        seconds: of music in it; 0 where that is not known, and of what was there before.
    """

    row: int
    tokens: NDArray[np.int32]
    is_last: bool = False
    seconds: float = 0.0


class Generator(Protocol):
    """A model ready to make pieces.

    Attributes:
        name, sha256: of the model.
        kind: of what it makes.
        vocab, vocab_sha: the vocabulary or codec, and its fingerprint.
        takes: names of a request's fields, and `prompt` and `guidance`, that it knows what to do with.
        words_are: which field plain words are.
        drawing: how it draws unless it is told otherwise.
    """

    name: str
    sha256: str
    kind: Kind
    vocab: str
    vocab_sha: str
    takes: frozenset[str]
    words_are: Literal["text", "style"]
    drawing: Drawing

    def plan(self, request: Request, prompt: NDArray[np.int32] | None) -> Planned:
        """Understand a request, of which nothing is asked that the generator does not take.

        Args:
            request: what pieces are to be like.
            prompt: int32 [t] ids or [K, t] codes, what they begin with.

        Raises:
            UsageError, InputError, MissingError: it can't be done.
        """
        ...

    def generate(self, pieces: Sequence[Piece], drawing: Drawing) -> Iterator[Chunk]:
        """Make pieces side by side.

        What becomes of one depends on its plan, its number and the drawing, not on the others.

        Yields:
            Chunks as they are made, those of one piece in order, beginning with its prompt.
        """
        ...


def open_generator(name: str, setup: Setup) -> Generator:
    """Make a model ready to make pieces.

    Args:
        name: a model's name, or the path of a folder in our own format.
        setup: where and how it runs.

    Raises:
        MissingError: the model is not here, or something that it needs.
        ResourceError: the device is not there.
        UsageError: the model makes no pieces.
        InputError: its files are damaged.
    """
    from musictool.inference.model_files import load_model

    loaded = load_model(name, store=setup.store)
    family = loaded.config.family
    if family not in FAMILIES:
        raise UsageError(f"{name} is no model that makes pieces", hint=f"families that do are {', '.join(FAMILIES)}")
    opened: Callable[[LoadedModel, Setup], Generator] = import_module(FAMILIES[family]).open_generator
    return opened(loaded, setup)


def check_request(generator: Generator, request: Request) -> None:
    """Refuse what a generator does not take.

    Raises:
        UsageError: something is asked for that means nothing to it.
    """
    for name in request.asked():
        check_taken(generator, name)


def check_taken(generator: Generator, name: str) -> None:
    """Refuse one thing that a generator does not take.

    Raises:
        UsageError: it means nothing to it.
    """
    if name not in generator.takes:
        what = "nothing to go on from" if name == PROMPT else f"no {option_of(name)}"
        others = sorted(generator.takes - {PROMPT, GUIDANCE})
        raise UsageError(f"{generator.name} takes {what}", hint=f"it takes {listed(others)}")


def in_turn(chunks: Iterable[Chunk], count: int) -> Iterator[Iterator[Chunk]]:
    """Pieces that are made side by side, one after the other: those of the first pass on at once, others wait.

    Args:
        chunks: of all pieces.
        count: how many pieces there are.

    Yields:
        The chunks of each piece, to be read before the next piece is asked for.
    """
    source = iter(chunks)
    held: list[deque[Chunk]] = [deque() for _ in range(count)]
    for index in range(count):
        yield _of_one(index, held, source)


def _of_one(index: int, held: Sequence[deque[Chunk]], source: Iterator[Chunk]) -> Iterator[Chunk]:
    """The chunks of one piece, while those of later ones are held."""
    while True:
        while held[index]:
            chunk = held[index].popleft()
            yield chunk
            if chunk.is_last:
                return
        arrived = next(source)  # a piece that has not ended has a chunk to come
        held[arrived.row].append(arrived)
