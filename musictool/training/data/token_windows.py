"""Token corpora as training examples: stretches of pieces, each known from the seed and its number alone.

    corpus = open_token_corpus(["corpus.parquet"], find_scheme("tatum").vocabulary)
    example = Windows(corpus, 1024, seed=0)[17]           # at most 1024 tokens of one piece
    example = PackedWindows(corpus, 1024, seed=0)[17]     # 1024 tokens, of as many pieces as it takes

In an epoch every token is in one example. An epoch goes through a big corpus block by block, each of row groups drawn
at random, and shuffles within, so that each row group is read about once.

Knows nothing of models: what is fed, what is to be predicted, where attention may reach and what fills up a batch is
the task's to say.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from musictool.training.data.token_corpus import TokenCorpus, TokenExample


class _Shuffle:
    """The order of an epoch, block by block; the last one that was asked for is kept.

    Args:
        corpus: the pieces.
        counts: int64 [pieces], into how many parts each is cut.
        seed: of the orders.
    """

    def __init__(self, corpus: TokenCorpus, counts: NDArray[np.int64], seed: int) -> None:
        self._corpus = corpus
        self._counts = counts
        self._seed = seed
        self._epoch = -1

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Numbers of parts, counted through all pieces; int64 [parts]."""
        if epoch != self._epoch:
            generator = np.random.default_rng((self._seed, epoch))
            blocks = np.repeat(self._corpus.draw_blocks(generator), self._counts)
            self._order = np.lexsort((generator.random(len(blocks)), blocks))
            self._epoch = epoch
        return self._order


class Windows:
    """Stretches of single pieces in a random order; where a piece is cut is drawn anew for each epoch.

    A piece of t tokens gives ceil(t / length) windows, of which the first and the last may be shorter.

    Args:
        corpus: the pieces.
        length: tokens of a window, at most.
        seed: of the order and the cuts.
    """

    def __init__(self, corpus: TokenCorpus, length: int, seed: int) -> None:
        self._corpus = corpus
        self._length = length
        self._seed = seed
        self._counts = -(-corpus.lengths // length)
        self._ends = np.cumsum(self._counts)
        self._shuffle = _Shuffle(corpus, self._counts, seed)

    @property
    def epoch_count(self) -> int:
        """How many examples have every token once."""
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> TokenExample:
        """Example number `index`, 0, 1, 2, … over all epochs."""
        epoch, place = divmod(index, self.epoch_count)
        number = int(self._shuffle.order(epoch)[place])
        piece = int(np.searchsorted(self._ends, number, side="right"))
        count = int(self._counts[piece])
        slack = count * self._length - int(self._corpus.lengths[piece])
        shift = int(np.random.default_rng((self._seed, epoch, piece)).integers(slack + 1))
        start = (number - int(self._ends[piece]) + count) * self._length - shift
        return self._corpus.example(piece, max(0, start), start + self._length)


class PackedWindows:
    """Pieces one behind the other in a random order, cut into windows of one length: nothing is left to fill up.

    Args:
        corpus: the pieces.
        length: tokens of a window.
        seed: of the order, a new one for each epoch.
        separator: a token to follow every piece; it counts as the piece's last.
    """

    def __init__(self, corpus: TokenCorpus, length: int, seed: int, separator: int | None = None) -> None:
        self._corpus = corpus
        self._length = length
        self._separator = separator
        self._lengths = corpus.lengths + (separator is not None)
        self._epoch_tokens = int(self._lengths.sum())
        self._shuffle = _Shuffle(corpus, np.ones(len(corpus), np.int64), seed)
        self._ends: tuple[int, NDArray[np.int64]] = (-1, self._lengths)

    def __getitem__(self, index: int) -> TokenExample:
        """Example number `index`, 0, 1, 2, …; the one in which an epoch ends goes on with the next."""
        epoch, start = divmod(index * self._length, self._epoch_tokens)
        parts: list[TokenExample] = []
        missing = self._length
        while missing:
            for part in self._parts(epoch, start, missing):
                parts.append(part)
                missing -= len(part)
            epoch, start = epoch + 1, 0
        return TokenExample(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.piece for part in parts]),
            np.concatenate([part.position for part in parts]),
        )

    def _parts(self, epoch: int, start: int, count: int) -> Iterator[TokenExample]:
        """At most `count` tokens of an epoch from its token `start` on, piece by piece."""
        order = self._shuffle.order(epoch)
        if self._ends[0] != epoch:
            self._ends = epoch, np.cumsum(self._lengths[order])
        ends = self._ends[1]
        for place in range(int(np.searchsorted(ends, start, side="right")), len(order)):
            piece = int(order[place])
            skipped = start - int(ends[place] - self._lengths[piece])
            part = self._corpus.example(piece, skipped, skipped + count, self._separator)
            yield part
            start += len(part)
            count -= len(part)
            if not count:
                return
