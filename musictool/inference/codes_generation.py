"""Codes of a codec out of a model that says them step by step, frame by frame as they become whole.

For any model whose steps hold K codes in a pattern. What is known, which is a prompt's codes and where a pattern has no
code, is put in place of what the model says. Guidance runs every piece twice side by side, with its conditions and
without, and goes further in the direction in which they differ (Ho and Salimans, 2022; arXiv:2207.12598). On a GPU a
step is recorded once and played from then on. Deals in codes and knows nothing of their sound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from musictool.core.codebooks import Pattern
from musictool.core.cuda_graphs import can_record, record
from musictool.core.kv_cache import KVCache, Memory
from musictool.inference.sampling import Sampling

Conditions = TypeVar("Conditions")

WARM_STEPS = 2  # before a step is recorded, so that all that it needs is loaded


class CodeModel(Protocol[Conditions]):
    """A model of codes.

    Attributes:
        pattern: at which step each code stands.
        special_id: stands where there is no code.
    """

    pattern: Pattern

    @property
    def special_id(self) -> int: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def start(self, conditions: Conditions, *, capacity: int, is_static: bool = False) -> tuple[KVCache, Memory | None]:
        """A cache of a row a piece, with room for that many steps, and what its steps attend to beside it."""
        ...

    def with_and_without(self, conditions: Conditions) -> Conditions:
        """The conditions of all pieces, and after them those of as many pieces on which there are none."""
        ...

    def decode(self, ids: Tensor, memory: Memory | None, *, cache: KVCache, positions: Tensor) -> Tensor:
        """Logits [B, K, T, V] of ids [B, K, T] at positions [B, T], after what the cache holds."""
        ...


@torch.inference_mode()
def generate_codes(
    model: CodeModel[Conditions],
    conditions: Conditions,
    frames: int,
    *,
    prompt: Tensor | None = None,
    sampling: Sampling | None = None,
    guidance: float = 1.0,
    draws: Sequence[torch.Generator] | None = None,
) -> Generator[Tensor, None, None]:
    """Generate codes of B pieces side by side.

    Args:
        model: in evaluation mode.
        conditions: of the pieces, as the model takes them.
        frames: how many to generate.
        prompt: int64 [B, K, T], what the pieces begin with; it is not given out again.
        sampling: how codes are chosen.
        guidance: how far to go from what the model says without conditions (0) to what it says with them (1), and
            beyond.
        draws: of each piece; by default those of as many requests from number 0 on. They go on where they stand, so
            that a piece that is generated in parts draws each time anew.

    Yields:
        Codes of one frame after another, int64 [B, K].
    """
    is_guided = guidance != 1
    capacity = model.pattern.steps(frames + (0 if prompt is None else prompt.shape[-1]))
    told = model.with_and_without(conditions) if is_guided else conditions
    cache, memory = model.start(told, capacity=capacity, is_static=can_record(next(model.parameters()).device))
    reader = _Reader(model, memory, cache)
    rows = cache.rows // 2 if is_guided else cache.rows
    if prompt is None:
        prompt = torch.zeros(rows, model.pattern.codebooks, 0, dtype=torch.int64, device=cache.lengths.device)
    known = _Known(model.pattern, model.special_id, prompt, frames)
    sampling = sampling or Sampling()
    if draws is None:
        draws = [sampling.generator(row) for row in range(rows)]
    generators = [generator for generator in draws for _ in range(model.pattern.codebooks)]
    ids = known.start()  # [B, K, T]
    recent = deque(ids.unbind(-1), maxlen=model.pattern.steps(1))
    for step in known.steps():
        logits = reader.read(ids.repeat(2, 1, 1) if is_guided else ids)
        if is_guided:
            conditioned, free = logits.chunk(2)
            logits = free + (conditioned - free) * guidance
        chosen = sampling.choose(logits.flatten(0, 1), generators).unflatten(0, logits.shape[:2])  # [B * K] -> [B, K]
        ids = known.fill(step, chosen).unsqueeze(-1)
        recent.append(ids[..., 0])
        if known.completes_frame(step):
            yield model.pattern.gather(torch.stack(tuple(recent), dim=-1))[..., 0]


class _Reader:
    """Reads ids, step after step; with a static cache, steps of one id each are recorded and then played.

    Args:
        model: in evaluation mode.
        memory: what its steps attend to.
        cache: keeps what is read.
    """

    def __init__(self, model: CodeModel[Conditions], memory: Memory | None, cache: KVCache) -> None:
        self._model = model
        self._memory = memory
        self._cache = cache
        self._records = cache.is_static
        self._warm_steps = 0
        self._ids = torch.empty(0)
        self._play: Callable[[], Tensor] | None = None

    def read(self, ids: Tensor) -> Tensor:
        """What comes after the next ids, int64 [B, K, T]: logits, float32 [B, K, V], there until the next reading."""
        if not self._records or ids.shape[-1] > 1:
            return self._step(ids)
        if self._play is not None:
            self._cache.follow(1)
            self._ids.copy_(ids)
            return self._play()
        if self._warm_steps < WARM_STEPS:
            self._warm_steps += 1
            return self._step(ids)
        self._ids = ids.clone()
        try:
            self._play = record(lambda: self._step(self._ids), ids.device)
        except RuntimeError:  # it takes memory of its own: without it the piece is made all the same, only slower
            self._records = False
            self._cache.recount()
            return self._step(ids)
        return self._play()

    def _step(self, ids: Tensor) -> Tensor:
        positions = self._cache.begin(ids.shape[-1])
        logits = self._model.decode(ids, self._memory, cache=self._cache, positions=positions)
        self._cache.commit(ids.shape[-1])
        return logits[:, :, -1].float()


class _Known:
    """What stands at a step whatever a model says of it.

    Args:
        pattern: of the steps.
        special_id: stands where there is no code.
        prompt: int64 [B, K, T], codes of the first frames.
        frames: how many come after them.
    """

    def __init__(self, pattern: Pattern, special_id: int, prompt: Tensor, frames: int) -> None:
        self._pattern = pattern
        self._special_id = special_id
        self._prompt = prompt
        self._frames = range(prompt.shape[-1], prompt.shape[-1] + frames)

    def start(self) -> Tensor:
        """The steps before the first at which there is anything to choose, int64 [B, K, T]."""
        first = self._pattern.first_step(self._frames.start)
        return self._pattern.spread(self._prompt, self._special_id)[..., :first]

    def steps(self) -> range:
        """The steps after those; none if there is no frame to come."""
        first = self._pattern.first_step(self._frames.start)
        return range(first, self._pattern.steps(self._frames.stop) if self._frames else first)

    def completes_frame(self, step: int) -> bool:
        """Whether a frame that is to come is whole with a step, and not before."""
        ready = self._pattern.frames_ready(step + 1)
        return ready > max(self._frames.start, self._pattern.frames_ready(step))

    def fill(self, step: int, chosen: Tensor) -> Tensor:
        """A step's ids, int64 [B, K]: the chosen ones but where others are known."""
        frames = self._pattern.frames_at(step)
        if all(frame in self._frames for frame in frames):
            return chosen
        columns = []
        for codebook, frame in enumerate(frames):
            column = chosen[:, codebook]
            if 0 <= frame < self._frames.start:
                column = self._prompt[:, codebook, frame]
            elif frame not in self._frames:
                column = torch.full_like(column, self._special_id)
            columns.append(column)
        return torch.stack(columns, dim=1)
