"""Decoding many sequences at once, for any model of the core: ids in, ids out.

Rows of a batch are at steps of their own. A row whose sequence has ended is given to the next one that waits, so that
the batch stays full until the last ones end. The engine asks for the next batch of requests when it has a row free for
it, and for nothing else: what is decoded beside what depends on the requests alone, and the same requests give the
same bytes. It deals in ids and knows nothing of what they mean.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from musictool.core.kv_cache import KVCache, Memory
from musictool.inference.grammar import Grammar
from musictool.inference.sampling import Sampling

Key = TypeVar("Key")


class Decodable(Protocol):
    """A model whose decoder the engine can run."""

    def new_cache(self, rows: int, *, capacity: int = 64, is_static: bool = False) -> KVCache: ...

    def decode(self, ids: Tensor, memory: Memory, *, cache: KVCache, positions: Tensor) -> Tensor:
        """Logits [B, T, V] of ids [B, T] at positions [B, T], after what the cache holds."""
        ...


@dataclass(frozen=True)
class Requests(Generic[Key]):
    """Sequences to decode that come together.

    Attributes:
        keys: what the caller knows each by.
        memory: what each attends to, a row each.
        prompts: the ids each begins with, at least one.
    """

    keys: Sequence[Key]
    memory: Memory
    prompts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Decoded(Generic[Key]):
    """A sequence that is done.

    Attributes:
        key: as in its request.
        ids: without the prompt, with the end id unless the sequence was cut off.
        is_cut_off: whether it reached the longest length before its end.
    """

    key: Key
    ids: list[int]
    is_cut_off: bool


@dataclass
class _Row(Generic[Key]):
    """A sequence on its way."""

    key: Key
    generator: torch.Generator
    ids: list[int] = field(default_factory=list)


class Engine:
    """Runs a decoder.

    Args:
        model: in evaluation mode.
        end_id: ends a sequence.
        tokens_max: the most ids of a sequence, its prompt not counted.
        rows: R, sequences side by side.
        sampling: how ids are chosen.
        grammar: which ids may follow which; all may if there is none.
    """

    def __init__(
        self,
        model: Decodable,
        *,
        end_id: int,
        tokens_max: int,
        rows: int,
        sampling: Sampling | None = None,
        grammar: Grammar | None = None,
    ) -> None:
        self._model = model
        self._end_id = end_id
        self._tokens_max = tokens_max
        self._rows = rows
        self._sampling = sampling or Sampling()
        self._grammar = grammar

    @torch.inference_mode()
    def run(self, batches: Iterable[Requests[Key]]) -> Generator[Decoded[Key], None, None]:
        """Decode requests as they come.

        Args:
            batches: the next is asked for when all of the last one have a row.

        Yields:
            Sequences in the order in which they end.
        """
        decoding = _Decoding[Key](self._model, self._rows, self._sampling, self._grammar)
        for requests in batches:
            for index in range(len(requests.keys)):
                while decoding.is_full:
                    yield from self._step(decoding)
                decoding.admit(requests, index)
        while decoding.is_busy:
            yield from self._step(decoding)

    def _step(self, decoding: _Decoding[Key]) -> Iterator[Decoded[Key]]:
        for slot, row in decoding.step():
            is_ended = row.ids[-1] == self._end_id
            if is_ended or len(row.ids) >= self._tokens_max:
                decoding.release(slot)
                yield Decoded(row.key, row.ids, is_cut_off=not is_ended)


class _Decoding(Generic[Key]):
    """The rows of one run: which are taken, what each keeps, and one step of all."""

    def __init__(self, model: Decodable, rows: int, sampling: Sampling, grammar: Grammar | None) -> None:
        self._model = model
        self._sampling = sampling
        self._grammar = grammar
        self._cache = model.new_cache(rows)
        self._memory: Memory | None = None
        device = self._cache.lengths.device
        self._ids = torch.zeros(rows, dtype=torch.int64, device=device)  # what each row is to read next
        self._states = torch.zeros(rows, dtype=torch.int64, device=device)
        self._slots: list[_Row[Key] | None] = []
        self._admitted = 0

    @property
    def is_full(self) -> bool:
        return len(self._slots) == self._cache.rows and None not in self._slots

    @property
    def is_busy(self) -> bool:
        return any(row is not None for row in self._slots)

    def admit(self, requests: Requests[Key], index: int) -> None:
        """Give a request a free row, and read all of its prompt but the last id."""
        slot = self._slots.index(None) if None in self._slots else len(self._slots)
        if self._memory is None:
            self._memory = requests.memory.room_for(self._cache.rows)
        self._memory.put(slot, requests.memory, index)
        self._cache.clear(slot)
        *read, last = requests.prompts[index]
        self._ids[slot] = last
        if read:
            self._prefill(slot, read)
        if self._grammar is not None:
            self._states[slot] = 0
            for id in requests.prompts[index]:
                self._states[slot] = self._grammar.advance(self._states[slot], torch.as_tensor(id))
        self._slots[slot : slot + 1] = [_Row(requests.keys[index], self._sampling.generator(self._admitted))]
        self._admitted += 1

    def step(self) -> Iterator[tuple[int, _Row[Key]]]:
        """Decode one id of each row; the rows and their slots."""
        self._close_gaps()
        rows = slice(0, len(self._slots))
        taken = [row for row in self._slots if row is not None]
        logits = self._read(self._ids[rows, None], rows)[:, -1]  # [B, 1, V] -> [B, V]
        if self._grammar is not None:
            logits = self._grammar.mask(logits, self._states[rows])
        chosen = self._sampling.choose(logits, [row.generator for row in taken])
        if self._grammar is not None:
            self._states[rows] = self._grammar.advance(self._states[rows], chosen)
        self._ids[rows] = chosen
        for slot, (row, id) in enumerate(zip(taken, chosen.tolist(), strict=True)):
            row.ids.append(id)
            yield slot, row

    def release(self, slot: int) -> None:
        """Let a row go."""
        self._slots[slot] = None

    def _prefill(self, slot: int, ids: Sequence[int]) -> None:
        device = self._ids.device
        self._read(torch.tensor([ids], dtype=torch.int64, device=device), slice(slot, slot + 1))

    def _read(self, ids: Tensor, rows: slice) -> Tensor:
        """Logits [B, T, V] of the next ids [B, T] of some rows, which the cache keeps."""
        assert self._memory is not None
        positions = self._cache.begin(ids.shape[1], rows)
        logits = self._model.decode(ids, self._memory.part(rows), cache=self._cache, positions=positions)
        self._cache.commit(ids.shape[1])
        return logits

    def _close_gaps(self) -> None:
        """Move the last rows into slots that nobody took, so that rows in use are the first ones."""
        assert self._memory is not None
        while None in self._slots:
            last = len(self._slots) - 1
            row = self._slots.pop()
            if row is None:
                continue
            gap = self._slots.index(None)
            self._slots[gap] = row
            self._cache.move(last, gap)
            self._memory.put(gap, self._memory, last)
            self._ids[gap] = self._ids[last]
            self._states[gap] = self._states[last]
