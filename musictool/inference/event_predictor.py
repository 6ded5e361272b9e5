"""A composer of symbolic music as `token_scoring` reads it: pieces are written in its language (`symbolic.composing`).

What counts are the ids that the model is asked for, chords and the end of the piece among them, not those that it is
told: style, key and how many bars are left. Since a piece's chords are found in its notes, what all ids cost together
is at least what the notes alone would. A window that begins within a piece begins with a bar, as in training, and says
anew what holds there; where bars are longer than half the context, it begins anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musictool.core.kv_cache import KVCache, Memory
from musictool.errors import InputError
from musictool.inference.sampling import Sampling
from musictool.inference.token_pieces import TokenPiece
from musictool.inference.token_scoring import Window
from musictool.models.symbolic_generator import SymbolicGenerator
from musictool.symbolic.composing import (
    BAR,
    END,
    HEADER_IDS,
    IS_TOLD,
    LANGUAGE,
    LEFT,
    LEFT_MAX,
    PAD,
    PITCH,
    Composition,
    compose,
    header,
)
from musictool.symbolic.composing_grammar import PassageGrammar
from musictool.symbolic.schemes import find_scheme
from musictool.symbolic.score_meta import assemble
from musictool.symbolic.vocabulary import Ids

_ALL = 1 << 40  # ids, more than any piece has


@dataclass(frozen=True, eq=False)
class Passage:
    """A piece in the model's language.

    Attributes:
        composition: it.
        ids: int32 [t], all of it with its header.
        style: the style's number; None leaves it open.
    """

    composition: Composition
    ids: Ids
    style: int | None

    @property
    def asked(self) -> NDArray[np.int64]:
        """Where the ids are that the model is asked for."""
        return np.flatnonzero(~IS_TOLD[self.ids])


class EventPredictor:
    """A composer.

    Args:
        model: in evaluation mode, on its device.
        style: number of the style that it is told; None leaves it open.
        device: where it is.
    """

    kind = "events"
    parts = tuple(declared.type for declared in LANGUAGE.ranges)
    padding_id = PAD
    size = len(LANGUAGE)

    def __init__(self, model: SymbolicGenerator, style: int | None, device: torch.device) -> None:
        self.context = model.config.context
        self.device = device
        self._model = model
        self._style = style

    def prepare(self, piece: TokenPiece) -> Passage:
        """A piece in the model's language, whatever scheme it came in.

        Raises:
            InputError: it is of codes, or has no notes, or its ids make no sense.
        """
        if piece.head.kind != "events":
            raise InputError("the item holds codes, and the model predicts notes", code="wrong-kind")
        score = assemble(find_scheme(piece.head.vocab).decode([piece.tokens[0]]), piece.head.meta)
        try:
            composition = compose(score)
        except ValueError as error:
            raise InputError("the item has no notes", code="no-notes") from error
        return Passage(composition, composition.passage(0, _ALL, self._style, composition.key), self._style)

    def length(self, passage: Passage) -> int:
        """Ids of a piece that the model is asked for."""
        return len(passage.asked)

    def notes(self, passage: Passage) -> int:
        """How many notes a piece has."""
        return int(((passage.ids >= PITCH) & (passage.ids < PITCH + 128)).sum())

    def windows(self, passage: Passage) -> Iterator[Window]:
        """The windows of a piece, in which each of its ids that the model is asked for counts once."""
        done = min(len(passage.ids), self.context)
        yield _window(passage.ids[:done], 1)
        while done < len(passage.ids):
            ids, ahead = self._from_within(passage, done)
            yield _window(ids[: self.context], done + ahead)
            done = min(len(passage.ids), self.context - ahead)

    def _from_within(self, passage: Passage, place: int) -> tuple[Ids, int]:
        """A piece from about half a context before a place on, and by how much its ids stand further back there."""
        half = self.context // 2
        bars = np.flatnonzero(passage.ids == BAR)
        bar = int(np.searchsorted(bars, place - half, "right")) - 1
        if bar >= 0:
            ids = passage.composition.passage(bar, _ALL, passage.style, passage.composition.key)
            ahead = len(ids) - len(passage.ids)
            # What is said anew stands before what counts, which is as it was.
            is_same = np.array_equal(ids[place + ahead :], passage.ids[place:])
            if is_same and place + ahead <= self.context - self.context // 4:
                return ids, ahead
        start = header(False, passage.style, passage.composition.key)
        return np.concatenate([start, passage.ids[place - half :]]), len(start) - (place - half)

    def part_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The type of each event, int64 [1, n]."""
        return LANGUAGE.range_of_id[ids].astype(np.int64)

    def start(self, windows: Sequence[Window], capacity: int) -> tuple[KVCache, Memory | None]:
        """A cache of a row a window, and nothing beside it."""
        return self._model.new_cache(len(windows), capacity=capacity), None

    def decode(self, ids: Tensor, memory: Memory | None, *, cache: KVCache, positions: Tensor) -> Tensor:
        """Logits [B, 1, T, V] of what comes after each of ids [B, 1, T] at positions [B, T]."""
        return self._model.decode(ids[:, 0], memory, cache=cache, positions=positions)[:, None]

    # ----------------------------------------------------------------------------------------------------- going on

    def real(self, passage: Passage, prompt: int, length: int) -> NDArray[np.int64]:
        """What a piece goes on with after a prompt, of ids that the model is asked for, int64 [1, n]."""
        return passage.ids[passage.asked[prompt : prompt + length]].astype(np.int64)[None]

    def stretch(self, passage: Passage, prompt: int, length: int) -> Window:
        """A piece's beginning as one window, in which what comes after the prompt counts."""
        asked = passage.asked
        return _window(passage.ids[: int(asked[: prompt + length][-1]) + 1], int(asked[prompt]))

    def go_on(
        self, passages: Sequence[Passage], prompt: int, length: int, sampling: Sampling, first: int
    ) -> NDArray[np.int64]:
        """Write ids after the beginnings of pieces; how many bars are left is told as the piece itself has it.

        Args:
            passages: with more than `prompt` ids that the model is asked for.
            prompt: so many of these the model goes on from.
            length: how many to write.
            sampling: how ids are chosen.
            first: number of the first piece; a piece's number and the seed make its draws.

        Returns:
            int64 [B, 1, length]; -1 after the end of a piece.
        """
        rows = [
            _Row(passage.ids[: int(passage.asked[prompt])].tolist(), len(passage.composition.bars))
            for passage in passages
        ]
        draws = [sampling.generator(first + number) for number in range(len(rows))]
        cache = self._model.new_cache(len(rows))
        self._read(cache, [row.ids[:-1] for row in rows])
        while any(len(row.written) < length for row in rows):
            logits = self._read(cache, [row.ids[-1:] for row in rows])[:, -1]
            refused = torch.from_numpy(np.stack([~row.allowed() for row in rows]))
            chosen = sampling.choose(logits.masked_fill(refused.to(self.device), float("-inf")), draws)
            for row, id in zip(rows, chosen.tolist(), strict=True):
                row.add(id)
        return np.array([row.written[:length] for row in rows])[:, None]

    def _read(self, cache: KVCache, ids: Sequence[Sequence[int]]) -> Tensor:
        """Logits [B, T, V] after the next ids of each row, filled up at the end; the cache keeps the ids."""
        counts = torch.tensor([len(some) for some in ids])
        steps = int(counts.max())
        if not steps:
            return torch.zeros(len(ids), 0, self.size)
        padded = torch.tensor([[*some, *[PAD] * (steps - len(some))] for some in ids])
        positions = cache.begin(steps)
        logits = self._model.decode(padded.to(self.device), cache=cache, positions=positions)
        cache.commit(counts.to(self.device))
        return logits


class _Row:
    """A piece on its way.

    Args:
        ids: what it begins with.
        bars: how many it is to have.
    """

    def __init__(self, ids: list[int], bars: int) -> None:
        self.ids = ids
        self.written: list[int] = []
        self._left = bars - ids.count(BAR)
        self._grammar = PassageGrammar()
        for id in ids[HEADER_IDS:]:
            self._grammar.advance(id)

    def allowed(self) -> NDArray[np.bool_]:
        """What may come next, bool [V]: in the language, and with the piece's number of bars."""
        if self.ids[-1] == BAR:
            return np.arange(len(LANGUAGE)) == LEFT + min(self._left, LEFT_MAX)
        mask = self._grammar.allowed()
        mask[BAR if self._left == 0 else END] = False
        return mask if mask.any() else ~IS_TOLD

    def add(self, chosen: int) -> None:
        """Take the next id; nothing more is written of a piece that has ended."""
        is_over = self.ids[-1] == END
        if chosen == BAR:
            self._left -= 1
        if not LEFT <= chosen <= LEFT + LEFT_MAX:
            self.written.append(-1 if is_over else chosen)
        if not is_over:
            self._grammar.advance(chosen)
            self.ids.append(chosen)


def _window(ids: Ids, first: int) -> Window:
    """A window in which the ids from a place on count that the model is asked for."""
    counts = ~IS_TOLD[ids] & (np.arange(len(ids)) >= first)
    return Window(torch.from_numpy(ids.astype(np.int64))[None], torch.from_numpy(counts)[None])
