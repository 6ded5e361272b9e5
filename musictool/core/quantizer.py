"""Residual vector quantisation: each codebook says what the ones before it have left over.

As in SoundStream (Zeghidour et al., 2021; arXiv:2107.03312, section III-C): the fewer codebooks are used, the coarser
and the shorter the code, with the same weights. Codebooks are no parameters: while a model is trained they follow the
vectors that choose them (van den Oord et al., 2017; arXiv:1711.00937, appendix A.1), which is what a `CodebookLearner`
does; to use a model nobody needs one.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional


class Quantized(NamedTuple):
    """What became of latents.

    Attributes:
        latents: float [B, D, T], as the codes have them; gradients pass through to what was quantised.
        codes: int64 [B, K, T].
        commitment: the mean squared distance of what was quantised to what was chosen, over all levels in use; a scalar
            with a gradient.
    """

    latents: Tensor
    codes: Tensor
    commitment: Tensor


class Codebook(nn.Module):
    """Vectors to choose from.

    Args:
        size: how many, V.
        width: of each, D.
    """

    averages_itself: ClassVar[bool] = True  # so that a running average of a model has its entries as they are

    entries: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        entries = torch.empty(size, width)
        nn.init.normal_(entries, std=width**-0.5)
        self.register_buffer("entries", entries)

    def nearest(self, vectors: Tensor) -> Tensor:
        """The entry nearest to each vector; float [M, D] to int64 [M]."""
        with torch.autocast(vectors.device.type, enabled=False):  # or what is near would be told apart by chance
            squares = vectors.square().sum(1, keepdim=True)
            distances = squares - 2 * (vectors @ self.entries.T) + self.entries.square().sum(1)
        return distances.argmin(1)

    def forward(self, codes: Tensor) -> Tensor:
        """The entries that codes name; int64 [...] to float [..., D]."""
        return functional.embedding(codes, self.entries)


class ResidualQuantizer(nn.Module):
    """Codebooks, each for what the ones before it leave over.

    Args:
        codebooks: how many, K.
        size: entries of each, V.
        width: of latents, D.
    """

    def __init__(self, codebooks: int, size: int, width: int) -> None:
        super().__init__()
        self.codebooks = nn.ModuleList(Codebook(size, width) for _ in range(codebooks))

    @torch.no_grad()
    def encode(self, latents: Tensor, levels: int | None = None) -> Tensor:
        """Codes of latents.

        Args:
            latents: float [B, D, T].
            levels: codebooks to use; all by default.

        Returns:
            int64 [B, K, T].
        """
        residual = latents.float().transpose(1, 2).flatten(0, 1)  # [B * T, D]
        codes = []
        for codebook in self._used(levels):
            codes.append(codebook.nearest(residual))
            residual = residual - codebook(codes[-1])
        return torch.stack(codes, 1).unflatten(0, (len(latents), -1)).transpose(1, 2)  # [B, K, T]

    def decode(self, codes: Tensor) -> Tensor:
        """Latents of codes; int64 [B, K, T] to float [B, D, T]. There may be fewer rows than codebooks."""
        total = torch.zeros((), device=codes.device)
        for codebook, row in zip(self._used(codes.shape[1]), codes.unbind(1), strict=True):
            total = total + codebook(row)
        return total.transpose(1, 2)

    def forward(
        self, latents: Tensor, levels: Tensor | None = None, learner: CodebookLearner | None = None
    ) -> Quantized:
        """Quantise latents so that gradients pass.

        Args:
            latents: float [B, D, T].
            levels: int64 [B], how many codebooks to use for each of the batch; all by default.
            learner: follows the vectors that come by; none to leave codebooks as they are.
        """
        vectors = latents.float().transpose(1, 2)  # [B, T, D]
        residual, total = vectors, torch.zeros_like(vectors)
        codes, misses = [], []
        for number, codebook in enumerate(self._used(None)):
            is_used = torch.ones_like(vectors[..., 0], dtype=torch.bool)
            if levels is not None:
                is_used = is_used & (levels > number)[:, None]
            chosen = residual[is_used].detach()
            if learner is not None:
                learner.prepare(number, codebook, chosen)
            codes.append(codebook.nearest(residual.detach().flatten(0, 1)).unflatten(0, residual.shape[:2]))
            entry = torch.where(is_used[..., None], codebook(codes[-1]), 0)
            misses.append((residual - entry).square().mean(-1)[is_used].sum() / is_used.sum().clamp(min=1))
            if learner is not None:
                learner.follow(number, codebook, chosen, codes[-1][is_used])
            residual, total = residual - entry, total + entry
        through = vectors + (total - vectors).detach()
        return Quantized(through.transpose(1, 2), torch.stack(codes, 1), torch.stack(misses).mean())

    def _used(self, levels: int | None) -> list[Codebook]:
        if levels is not None and not 1 <= levels <= len(self.codebooks):
            raise ValueError(f"there are {len(self.codebooks)} codebooks, not {levels}")
        return [cast(Codebook, codebook) for codebook in self.codebooks[:levels]]


class CodebookLearner(nn.Module):
    """Lets codebooks follow what chooses them: moving averages, a start by k-means, new life for what nobody chooses.

    Under `torch.distributed` all processes' vectors count, and codebooks stay the same in all of them.

    Args:
        codebooks, size, width: as of the quantiser.
        decay: of the moving averages, a step.
        revival: an entry that is chosen less often than this share of an even use becomes a vector of the batch.
        start_rounds: of k-means over the first batch.
    """

    counts: Tensor
    sums: Tensor
    is_started: Tensor

    def __init__(
        self,
        codebooks: int,
        size: int,
        width: int,
        *,
        decay: float = 0.99,
        revival: float = 0.1,
        start_rounds: int = 10,
    ) -> None:
        super().__init__()
        self.register_buffer("counts", torch.ones(codebooks, size))
        self.register_buffer("sums", torch.zeros(codebooks, size, width))
        self.register_buffer("is_started", torch.zeros(codebooks, dtype=torch.bool))
        self._decay = decay
        self._revival = revival
        self._start_rounds = start_rounds

    @torch.no_grad()
    def prepare(self, level: int, codebook: Codebook, vectors: Tensor) -> None:
        """Give a codebook its first entries, once there are vectors to choose them by.

        Args:
            level: the codebook's number.
            codebook: changed in place.
            vectors: float [M, D].
        """
        if self.is_started[level]:
            return
        entries = _drawn(vectors, len(codebook.entries))
        for _ in range(self._start_rounds if len(vectors) else 0):
            codebook.entries.copy_(entries)
            counts, sums = _by_entry(codebook.nearest(vectors), vectors, len(entries))
            entries = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], entries)
        codebook.entries.copy_(_of_first_process(entries))
        self.adopt(level, codebook)

    @torch.no_grad()
    def adopt(self, level: int, codebook: Codebook) -> None:
        """Take a codebook's entries as they are, to follow on from there."""
        self.counts[level] = 1
        self.sums[level] = codebook.entries
        self.is_started[level] = True

    @torch.no_grad()
    def follow(self, level: int, codebook: Codebook, vectors: Tensor, codes: Tensor) -> None:
        """Move a codebook towards the vectors that have chosen it.

        Args:
            level: the codebook's number.
            codebook: changed in place.
            vectors: float [M, D].
            codes: int64 [M], the entry that each has chosen.
        """
        counts, sums = _by_entry(codes, vectors, len(codebook.entries))
        if _is_distributed():
            distributed.all_reduce(counts)
            distributed.all_reduce(sums)
        if not counts.any():
            return
        scale = len(counts) / counts.sum()  # so that a count of 1 is an even use, however big a batch is
        self.counts[level].lerp_(counts * scale, 1 - self._decay)
        self.sums[level].lerp_(sums * scale, 1 - self._decay)
        is_dead = self.counts[level] < self._revival
        if is_dead.any():
            fresh = _of_first_process(_drawn(vectors, len(codebook.entries)))
            self.counts[level] = torch.where(is_dead, 1, self.counts[level])
            self.sums[level] = torch.where(is_dead[:, None], fresh, self.sums[level])
        codebook.entries.copy_(self.sums[level] / self.counts[level][:, None])


def _by_entry(codes: Tensor, vectors: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """How many vectors chose each entry, float [V], and their sum, float [V, D]."""
    counts = torch.bincount(codes, minlength=size).to(vectors.dtype)
    return counts, vectors.new_zeros(size, vectors.shape[1]).index_add_(0, codes, vectors)


def _drawn(vectors: Tensor, count: int) -> Tensor:
    """Vectors at random, each once where there are enough; noise where there are none."""
    if not len(vectors):
        return torch.randn(count, vectors.shape[1], device=vectors.device)
    rounds = [torch.randperm(len(vectors), device=vectors.device) for _ in range(-(-count // len(vectors)))]
    return vectors[torch.cat(rounds)[:count]]


def _of_first_process(values: Tensor) -> Tensor:
    """The first process's values, in all processes."""
    if _is_distributed():
        values = values.contiguous()
        distributed.broadcast(values, 0)
    return values


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()
