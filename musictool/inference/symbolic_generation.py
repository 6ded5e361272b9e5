"""Music composed by a symbolic generator: requests -> ids of scheme `remi`, bar after bar, as they are made.

What may come next in a piece, and what the model is to have read of it by then, is `inference.composing_passage`'s to
say. Several pieces are made side by side, each in rows of its own. With guidance a second row of each piece is told
neither style nor key (Ho and Salimans, 2022).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musictool.core.kv_cache import KVCache
from musictool.errors import InputError, UsageError
from musictool.inference.composing_passage import DEFAULT_BARS, Passage, Wishes
from musictool.inference.generation import GUIDANCE, PROMPT, Chunk, Piece, Planned, Setup
from musictool.inference.generation_options import Drawing, Request
from musictool.inference.model_files import LoadedModel
from musictool.inference.precision import find_device, make_ready
from musictool.inference.sampling import Sampling
from musictool.models.symbolic_generator import SymbolicGenerator
from musictool.stream.records import Kind
from musictool.symbolic import composing as language
from musictool.symbolic.chord_symbols import parse_key, parse_progression
from musictool.symbolic.composing import Composition, compose
from musictool.symbolic.notes import Score
from musictool.symbolic.schemes import find_scheme, remi


def open_generator(loaded: LoadedModel, setup: Setup) -> EventGenerator:
    """Make a symbolic generator ready.

    Raises:
        ResourceError: the device is not there.
    """
    device = find_device(setup.device)
    model = make_ready(loaded.model, device, setup.precision, says_steps=True)
    assert isinstance(model, SymbolicGenerator)
    return EventGenerator(model, loaded.name, loaded.sha256, device)


class EventGenerator:
    """A symbolic generator ready to make pieces; see `inference.generation.Generator`.

    Args:
        model: in evaluation mode, on its device.
        name, sha256: of the model.
        device: where it is.
    """

    kind: Kind = "events"
    vocab: str = "remi"
    vocab_sha: str = remi.VOCABULARY.fingerprint
    takes: frozenset[str] = frozenset({"style", "key", "tempo", "chords", "bars", "duration_seconds", PROMPT, GUIDANCE})
    words_are: Literal["text", "style"] = "style"
    drawing: ClassVar[Drawing] = Drawing(temperature=0.95, top_p=0.98)

    def __init__(self, model: SymbolicGenerator, name: str, sha256: str, device: torch.device) -> None:
        self._model = model
        self._device = device
        self.name = name
        self.sha256 = sha256

    def plan(self, request: Request, prompt: NDArray[np.int32] | None) -> Planned:
        """Understand a request.

        Raises:
            UsageError: a style, key or chord is none that the model knows.
            InputError: the prompt has no notes, or a file of chords can't be read.
        """
        score = None if prompt is None else find_scheme("remi").decode([prompt])
        past = None if score is None else _past(score)
        styles = self._model.config.styles
        style = None if request.style is None else _style(request.style, styles)
        key = None if request.key is None else language.key_number(*parse_key(request.key))
        if key is None and past is not None and past.key != language.ANY_KEY:
            key = past.key
        wishes = Wishes(
            style,
            key,
            None if request.tempo is None else _tempo(request.tempo),
            () if request.chords is None else _progression(request.chords),
            request.bars or (0 if request.duration_seconds else DEFAULT_BARS),
            request.duration_seconds or 0.0,
            past,
        )
        made = {} if request.bars or request.duration_seconds else {"bars": DEFAULT_BARS}
        begun = None if score is None else remi.encode(score)
        return Planned(request, wishes, begun, {}, made, seconds=wishes.seconds)

    @torch.inference_mode()
    def generate(self, pieces: Sequence[Piece], drawing: Drawing) -> Iterator[Chunk]:
        """Make pieces side by side, a chunk for each bar of each."""
        sampling = drawing.sampling()
        rows = [
            _Row(index, Passage(piece.plan.conditions, self._model.config.context), sampling.generator(piece.number))
            for index, piece in enumerate(pieces)
        ]
        for index, piece in enumerate(pieces):
            if piece.plan.prompt is not None:
                yield Chunk(index, piece.plan.prompt)
        yield from _Composing(self._model, rows, sampling, drawing.guidance, self._device).run()


# -------------------------------------------------------------------------------------------------------- understanding


def _style(name: str, styles: Sequence[str]) -> int:
    if name not in styles:
        hint = f"it knows {', '.join(styles) or 'none'}"
        raise UsageError(f"the model knows no style {name!r:.40}", hint=hint, code="no-such-style")
    return styles.index(name)


def _tempo(rate: float) -> int:
    if not remi.TEMPO_MIN <= round(rate) <= remi.TEMPO_MAX:
        hint = f"from {remi.TEMPO_MIN} to {remi.TEMPO_MAX} quarters a minute"
        raise UsageError(f"no such tempo: {rate:g}", context="--tempo", hint=hint)
    return round(rate)


def _progression(text: str) -> tuple[tuple[int, ...], ...]:
    """Numbers of chords, bar by bar, out of a text or a file that holds one."""
    try:
        if Path(text).suffix and os.path.isfile(text):  # which takes any text, however long
            text = Path(text).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot read the chords", context=text[:80], hint="a text file such as C Am | F G") from error
    return tuple(tuple(map(language.chord_number, bar)) for bar in parse_progression(text))


def _past(score: Score) -> Composition:
    if not len(score.notes):
        raise InputError("there are no notes to go on from", hint="leave the prompt away, or give one with notes")
    return compose(score)


# ------------------------------------------------------------------------------------------------------------ composing


@dataclass
class _Row:
    """A piece among those side by side."""

    index: int
    passage: Passage
    generator: torch.Generator


class _Composing:
    """The rows of one run, a cache for them, and one step of all.

    A piece has one row of the cache, or with guidance two, one after the other.
    """

    def __init__(
        self,
        model: SymbolicGenerator,
        rows: Sequence[_Row],
        sampling: Sampling,
        guidance: float,
        device: torch.device,
    ) -> None:
        self._model = model
        self._rows = list(rows)
        self._sampling = sampling
        self._guidance = guidance
        self._each = 1 if guidance == 1 else 2
        self._device = device
        self._cache: KVCache = model.new_cache(len(rows) * self._each, capacity=model.config.context)
        self._logits = torch.zeros(len(rows) * self._each, model.config.vocabulary)

    def run(self) -> Iterator[Chunk]:
        """Chunks of all pieces, a bar each."""
        held: dict[int, list[int]] = {row.index: [] for row in self._rows}
        begun = {row.index: 0.0 for row in self._rows}
        for slot in range(len(self._rows)):
            self._read_window(slot)
        while self._rows:
            chosen = self._choose()
            done = []
            for slot, (row, id) in enumerate(zip(self._rows, chosen, strict=True)):
                held[row.index] += row.passage.take(id)
                if row.passage.is_done:
                    done.append(slot)
                if held[row.index] and (row.passage.is_done or id == language.BAR):
                    seconds, begun[row.index] = row.passage.seconds - begun[row.index], row.passage.seconds
                    tokens, held[row.index] = np.array(held[row.index], np.int32), []
                    yield Chunk(row.index, tokens, row.passage.is_done, seconds)
                elif row.passage.is_done:
                    yield Chunk(row.index, np.zeros(0, np.int32), is_last=True)
            for slot in reversed(done):
                chosen[slot] = chosen[-1]
                chosen.pop()
                self._release(slot)
            self._read(chosen)

    def _choose(self) -> list[int]:
        """The next id of each piece."""
        logits = self._logits[: len(self._rows) * self._each]
        if self._each == 2:
            told, free = logits[0::2], logits[1::2]
            logits = free + (told - free) * self._guidance
        allowed = np.stack([row.passage.allowed() for row in self._rows])
        logits = logits.masked_fill(~torch.from_numpy(allowed), float("-inf"))
        return self._sampling.choose(logits, [row.generator for row in self._rows]).tolist()

    def _read(self, chosen: Sequence[int]) -> None:
        """Let the model read what was chosen; a piece whose window is full reads what is kept of it instead."""
        full = [slot for slot, row in enumerate(self._rows) if row.passage.is_full]
        if len(full) < len(self._rows):
            ids = torch.tensor(chosen, dtype=torch.int64, device=self._device).repeat_interleave(self._each)
            self._step(ids[:, None], slice(0, len(ids)))
        for slot in full:
            self._rows[slot].passage.slide()
            self._read_window(slot)

    def _read_window(self, slot: int) -> None:
        for offset in range(self._each):
            row = slot * self._each + offset
            self._cache.clear(row)
            ids = self._rows[slot].passage.window(is_told=offset == 0)
            self._step(torch.tensor([ids], dtype=torch.int64, device=self._device), slice(row, row + 1))

    def _step(self, ids: Tensor, rows: slice) -> None:
        """Read ids, int64 [B, T], of some rows, and keep the logits of what comes next."""
        positions = self._cache.begin(ids.shape[1], rows)
        logits = self._model.decode(ids, cache=self._cache, positions=positions)[:, -1]
        self._cache.commit(ids.shape[1])
        self._logits[rows] = logits.float().cpu()

    def _release(self, slot: int) -> None:
        """Give the place of a piece that is done to the last one."""
        last = len(self._rows) - 1
        row = self._rows.pop()
        if slot != last:
            self._rows[slot] = row
            for offset in range(self._each):
                self._cache.move(last * self._each + offset, slot * self._each + offset)
