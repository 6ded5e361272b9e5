"""Schemes: ways to write a score as ids of a vocabulary and read it back.

A scheme is a file here: its vocabulary, `encode`, `quantize` (what `encode` keeps, said without ids) and a `Decoder`.
Schemes are found by name and imported when they are first used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from typing import Protocol

from musictool.errors import InputError, UsageError
from musictool.stream.records import Head
from musictool.symbolic.notes import Notes, Pedals, Score
from musictool.symbolic.vocabulary import Ids, Vocabulary

SCHEMES = ("tatum", "mt3", "remi")
MIDITOK_PREFIX = "miditok:"


class Decoder(Protocol):
    """Ids to notes in any number of chunks; any cut into chunks gives the same notes.

    Attributes:
        keeps_pedals: whether `finish` gives every pedal press. A reader of figures sets it to False, so that memory
            does not grow with the piece; one press then reaches as far as they all did.
    """

    keeps_pedals: bool

    def feed(self, ids: Ids) -> Notes:
        """Take in ids, int32 [t]; the notes that they end. `track` holds the voice."""
        ...

    def finish(self) -> Score:
        """The rest: notes still sounding, pedals (`track` holds the source), and metre if the ids say it."""
        ...


@dataclass(frozen=True)
class Scheme:
    """A scheme by its parts.

    Attributes:
        name: as in a stream's head.
        vocabulary: what its ids mean.
        encode: score -> ids, int32 [t].
        quantize: score -> the notes and pedals that `encode` keeps.
        decoder: makes a fresh decoder.
    """

    name: str
    vocabulary: Vocabulary
    encode: Callable[[Score], Ids]
    quantize: Callable[[Score], tuple[Notes, Pedals]]
    decoder: Callable[[], Decoder]

    def decode(self, chunks: Iterable[Ids]) -> Score:
        """Whole pieces at once: the notes (`track` holds the voice) and what else the ids say."""
        decoder = self.decoder()
        tables = [decoder.feed(chunk) for chunk in chunks]
        rest = decoder.finish()
        return Score(
            Notes.concatenate([*tables, rest.notes]),
            tempo_map=rest.tempo_map,
            time_signatures=rest.time_signatures,
            pedals=rest.pedals,
            has_metre=rest.has_metre,
        )


@lru_cache
def find_scheme(name: str) -> Scheme:
    """The scheme of a name, or of a MidiTok tokenizer file as `miditok:FILE.json`.

    Raises:
        UsageError: there is no such scheme.
        MissingError: MidiTok is not installed.
        InputError: the tokenizer file can't be read.
    """
    if name.startswith(MIDITOK_PREFIX):
        from musictool.symbolic.schemes import miditok_file

        return miditok_file.load_scheme(name.removeprefix(MIDITOK_PREFIX))
    if name not in SCHEMES:
        near = get_close_matches(name, SCHEMES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(SCHEMES)} and miditok:FILE.json"
        raise UsageError(f"no such scheme: {name[:40]!r}", hint=hint)
    module = import_module(f"{__name__}.{name}")
    return Scheme(name, module.VOCABULARY, module.encode, module.quantize, module.Decoder)


def lookup_events(head: Head, own: Scheme | None = None) -> Vocabulary:
    """The vocabulary of an item of events, for a reader.

    Args:
        head: what the item says of itself.
        own: a scheme that is known only to the caller, such as one from a MidiTok file.

    Raises:
        InputError: the item holds something other than events, or its vocabulary is not known here.
    """
    if head.kind != "events":
        raise InputError("the item holds codes of a codec, not events", code="wrong-kind")
    if own is not None and own.name == head.vocab:
        return own.vocabulary
    if head.vocab not in SCHEMES:
        hint = "name its tokenizer file with --scheme miditok:FILE.json" if head.vocab == "miditok" else ""
        raise InputError(f"unknown vocabulary {head.vocab[:40]!r}", hint=hint, code="unknown-vocabulary")
    return find_scheme(head.vocab).vocabulary
