"""What a model holds of the tokens that really come next: -log p and rank of each, with the real ones before it.

For any model of the core whose steps hold K ids. A window is what it reads at once, and says which of its ids count.
Windows of one piece overlap where it is longer than the model's context (`spans`), so that every token counts once and
has half a context before it at least, or all that there is. Windows run side by side through a cache, a block of steps
at a time: logits are never more than a block's, however long a piece and large a vocabulary. Deals in ids and knows
nothing of what they mean.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musictool.core.kv_cache import KVCache, Memory
from musictool.errors import InputError
from musictool.metrics.tokens import Tally
from musictool.stream.records import Kind

Piece = TypeVar("Piece")
PieceRead = TypeVar("PieceRead", contravariant=True)

BLOCK_LOGITS = 1 << 23
"""How many logits there are at a time: 32 MiB."""


class Span(NamedTuple):
    """A stretch of a piece that a model reads at once: [start, stop), of which [first, stop) counts."""

    start: int
    first: int
    stop: int


@dataclass(frozen=True, eq=False)
class Window:
    """What a model reads at once.

    Attributes:
        ids: int64 [K, S], from the first step on.
        counts: bool [K, S], which of them are to be scored, none of step 0; as many in each row.
        conditions: what the model is told beside them, in its family's own form.
    """

    ids: Tensor
    counts: Tensor
    conditions: Any = None


@dataclass(frozen=True, eq=False)
class Scored:
    """What a model holds of the ids of a window that count, n of each row.

    Attributes:
        ids: int64 [K, n].
        nats: float32 [A, K, n], -log p of each at each temperature.
        ranks: int32 [K, n], how many ids the model holds for likelier.
    """

    ids: NDArray[np.int64]
    nats: NDArray[np.float32]
    ranks: NDArray[np.int32]


class Predictor(Protocol[PieceRead]):
    """A model that says what comes after ids, and how it reads pieces.

    Attributes:
        kind: what pieces are of.
        parts: what ids are counted by.
        size: V, ids that it tells apart.
        context: the most of a piece that it sees at once.
        padding_id: may stand behind the last id of a window.
        device: where it is.
    """

    kind: Kind
    parts: tuple[str, ...]
    size: int
    context: int
    padding_id: int
    device: torch.device

    def windows(self, piece: PieceRead) -> Iterator[Window]:
        """The windows of a piece, in which each of its ids counts once that the model is asked for."""
        ...

    def part_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the part of each of ids, int64 [K, n]."""
        ...

    def start(self, windows: Sequence[Window], capacity: int) -> tuple[KVCache, Memory | None]:
        """A cache of a row a window, with room for that many steps, and what its steps attend to beside it."""
        ...

    def decode(self, ids: Tensor, memory: Memory | None, *, cache: KVCache, positions: Tensor) -> Tensor:
        """Logits [B, K, T, V] of what comes after each of ids [B, K, T] at positions [B, T]."""
        ...


def spans(length: int, context: int) -> Iterator[Span]:
    """The stretches in which a piece is read.

    The first is as long as the context, and all of it counts; of each of the others half a context, or what is left at
    the end of the piece.

    Args:
        length: of the piece.
        context: most that is read at once, 1 at least.
    """
    stop = min(length, context)
    if stop:
        yield Span(0, 0, stop)
    while stop < length:
        first, stop = stop, min(length, stop + max(1, context // 2))
        yield Span(stop - context, first, stop)


def tally(
    predictor: Predictor[Piece], pieces: Iterable[Piece], *, temperatures: Sequence[float] = (1.0,), rows: int = 8
) -> list[Tally]:
    """Score pieces, and sum up what was found of each.

    Args:
        predictor: in evaluation mode.
        pieces: asked for as they are needed.
        temperatures: A, by which logits are divided, each above 0.
        rows: windows side by side, of one piece or several.

    Raises:
        InputError: the model's logits are no numbers.
    """
    tallies: list[Tally] = []
    owners: deque[Tally] = deque()

    def windows() -> Iterator[Window]:
        for piece in pieces:
            tallies.append(Tally(len(predictor.parts), temperatures))
            for window in predictor.windows(piece):
                owners.append(tallies[-1])
                yield window

    for scored in score(predictor, windows(), temperatures=temperatures, rows=rows):
        part = predictor.part_of(scored.ids).ravel()
        owners.popleft().add(scored.nats.reshape(len(temperatures), -1), scored.ranks.ravel(), part)
    return tallies


@torch.inference_mode()
def score(
    predictor: Predictor[Piece], windows: Iterable[Window], *, temperatures: Sequence[float] = (1.0,), rows: int = 8
) -> Iterator[Scored]:
    """Score windows.

    Args:
        predictor: in evaluation mode.
        windows: asked for as they are needed, `rows` at a time.
        temperatures: A, by which logits are divided, each above 0.
        rows: windows side by side.

    Yields:
        What was found of each window, in their order.

    Raises:
        InputError: the model's logits are no numbers.
    """
    remaining = iter(windows)
    while batch := list(islice(remaining, rows)):
        yield from _score_batch(predictor, batch, temperatures)


def _score_batch(
    predictor: Predictor[Piece], windows: Sequence[Window], temperatures: Sequence[float]
) -> Iterator[Scored]:
    ids, counts = _side_by_side(windows, predictor.padding_id)
    rows, codebooks, steps = ids.shape
    nats = torch.zeros(len(temperatures), rows, codebooks, steps)
    ranks = torch.zeros(rows, codebooks, steps, dtype=torch.int32)
    cache, memory = predictor.start(windows, steps)
    block = max(1, BLOCK_LOGITS // (rows * codebooks * predictor.size))
    for first in range(0, steps - 1, block):
        last = min(first + block, steps - 1)
        positions = cache.begin(last - first)
        read = ids[..., first:last].to(predictor.device)
        logits = predictor.decode(read, memory, cache=cache, positions=positions)
        cache.commit(last - first)
        here = slice(first + 1, last + 1)
        chosen = counts[..., here]
        of_these = _score_ids(logits[chosen.to(logits.device)], ids[..., here][chosen], temperatures)
        nats[..., here][:, chosen], ranks[..., here][chosen] = of_these
    for row, window in enumerate(windows):
        n = int(window.counts[0].sum())
        chosen = counts[row]
        yield Scored(
            ids[row][chosen].view(codebooks, n).numpy(),
            nats[:, row][:, chosen].view(len(temperatures), codebooks, n).numpy(),
            ranks[row][chosen].view(codebooks, n).numpy(),
        )


def _side_by_side(windows: Sequence[Window], padding_id: int) -> tuple[Tensor, Tensor]:
    """Ids int64 and what counts bool, [B, K, S], filled up at the end."""
    shape = (len(windows), len(windows[0].ids), max(window.ids.shape[-1] for window in windows))
    ids, counts = torch.full(shape, padding_id), torch.zeros(shape, dtype=torch.bool)
    for row, window in enumerate(windows):
        ids[row, :, : window.ids.shape[-1]] = window.ids
        counts[row, :, : window.ids.shape[-1]] = window.counts
    return ids, counts


def _score_ids(logits: Tensor, ids: Tensor, temperatures: Sequence[float]) -> tuple[Tensor, Tensor]:
    """-log p, float32 [A, n], and ranks, int32 [n], of ids, int64 [n], by logits [n, V]; on the CPU.

    Of ids that are as likely the lowest is chosen first, as `argmax` does.

    Raises:
        InputError: a logit is no number.
    """
    logits, ids = logits.float(), ids.to(logits.device)[:, None]
    own = logits.gather(1, ids)
    costs = [(logits / temperature).logsumexp(1) - own[:, 0] / temperature for temperature in temperatures]
    nats = torch.stack(costs)
    if not nats.isfinite().all():
        hint = "mtk models verify looks at its weights; --precision fp32 reaches further than bf16"
        raise InputError("the model's logits are no numbers", hint=hint, code="not-finite")
    is_before = torch.arange(logits.shape[1], device=logits.device) < ids
    ranks = ((logits > own) | ((logits == own) & is_before)).sum(1, dtype=torch.int32)
    return nats.cpu(), ranks.cpu()
