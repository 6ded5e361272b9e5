"""How near a sound is to the one that it should be: sample by sample, and as spectrograms show it.

    si_sdr_db             scale-invariant signal-to-distortion ratio in decibels (Le Roux et al., "SDR - half-baked or
                          well done?", 2019, arXiv:1811.02508): 10 log10 of |a s|^2 / |a s - x|^2, x the result, s the
                          reference, both without their mean, a = <x, s> / |s|^2. From -120 to 120, beyond which there
                          is rounding alone; the mean over channels; higher is better
    mel_distance          the mean of |log10 mel - log10 mel| over all bins, frames and channels at each of seven
                          resolutions, and the mean of these; 0 is the same, and 0.05 is a decibel
    stft_distance         spectral_convergence + log_stft_distance, both below (Yamamoto et al., "Parallel WaveGAN",
                          2020, arXiv:1910.11480, with equal weights); 0 is the same
    spectral_convergence  the Frobenius norm of |S| - |X| over that of |S|, of each channel at each of three
                          resolutions, and the mean of these; S and X are the spectrograms
    log_stft_distance     the mean of |ln |S| - ln |X|| over all bins, frames and channels at each of the three, and the
                          mean of these, with 1e-7 in place of any |S|^2 or |X|^2 that is less

`audio.spectral_distances` has the numbers of the spectrograms. What is not defined is None, never a number: the ratio
where a channel of either sound is silent or does not move, the convergence where the reference is silent. Channels that
have none are left out of the mean over channels. Sound is taken as it comes, in bounded memory. Knows no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from musictool.metrics.averages import Scores

if TYPE_CHECKING:
    from torch import Tensor

METRICS = ("si_sdr_db", "mel_distance", "stft_distance", "spectral_convergence", "log_stft_distance")

SI_SDR_MAX_DB = 120.0
MAGNITUDE_FLOOR = 1e-7**0.5
_STILL = 1e-12  # share of a channel's energy that rounding may leave when its mean is taken away


def evaluate(blocks: Iterable[NDArray[np.float32]], rate_hz: int) -> Scores:
    """Compare two sounds.

    Args:
        blocks: float32 [2, C, n], the reference and the result, of any length; there is a sample at least.
        rate_hz: of both.

    Returns:
        A value for each of `METRICS`, in their order.
    """
    import torch

    from musictool.audio.spectral_distances import in_stretches

    ratio, mel, stft = _Ratio(), _MelDistance(rate_hz), _StftDistance()
    with torch.inference_mode():
        for pair in in_stretches(ratio.watching(blocks)):
            mel.add(pair)
            stft.add(pair)
    convergence, log_distance = stft.convergence, stft.log_distance
    return {
        "si_sdr_db": ratio.decibels,
        "mel_distance": mel.distance,
        "stft_distance": None if convergence is None else convergence + log_distance,
        "spectral_convergence": convergence,
        "log_stft_distance": log_distance,
    }


class _Ratio:
    """The scale-invariant signal-to-distortion ratio of sounds that pass by."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: NDArray[np.float64] | float = 0.0  # [2, C]
        self._energies: NDArray[np.float64] | float = 0.0  # [2, C]
        self._product: NDArray[np.float64] | float = 0.0  # [C]

    def watching(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Hand on blocks [2, C, n]."""
        for block in blocks:
            exact = block.astype(np.float64)
            self._count += exact.shape[2]
            self._sums = self._sums + exact.sum(axis=2)
            self._energies = self._energies + (exact * exact).sum(axis=2)
            self._product = self._product + (exact[0] * exact[1]).sum(axis=1)
            yield block

    @property
    def decibels(self) -> float | None:
        """The mean over the channels in which both sounds move; None if there is no such channel."""
        sums, energies = np.asarray(self._sums), np.asarray(self._energies)
        moving = energies - sums * sums / self._count
        product = np.asarray(self._product) - sums[0] * sums[1] / self._count
        values = []
        for channel in np.flatnonzero((moving > _STILL * energies).all(axis=0)):
            target = product[channel] ** 2 / moving[0, channel]
            values.append(_decibels(target, moving[1, channel] - target))
        return float(np.mean(values)) if values else None


def _decibels(target: float, noise: float) -> float:
    """The ratio of two energies, not both 0, in decibels within the limits."""
    least = 10 ** (-SI_SDR_MAX_DB / 10) * max(target, noise)
    return float(10 * np.log10(max(target, least) / max(noise, least)))


class _MelDistance:
    """The distance of mel spectrograms, summed up stretch by stretch."""

    def __init__(self, rate_hz: int) -> None:
        from musictool.audio.spectral_distances import MEL_RESOLUTIONS, mel_matrix

        self._matrices = {resolution: mel_matrix(resolution, rate_hz) for resolution in MEL_RESOLUTIONS}
        self._means = [_Mean() for _ in MEL_RESOLUTIONS]

    def add(self, pair: Tensor) -> None:
        """Take in a stretch [2, C, reach + n + reach]."""
        from musictool.audio.spectral_distances import log_mel

        for (resolution, matrix), mean in zip(self._matrices.items(), self._means):
            reference, result = log_mel(pair, resolution, matrix)
            mean.add((reference - result).abs())

    @property
    def distance(self) -> float:
        return float(np.mean([mean.value for mean in self._means]))


class _StftDistance:
    """The two distances of spectrograms, summed up stretch by stretch."""

    def __init__(self) -> None:
        from musictool.audio.spectral_distances import STFT_RESOLUTIONS

        self._resolutions = STFT_RESOLUTIONS
        self._energies: list[NDArray[np.float64] | float] = [0.0 for _ in STFT_RESOLUTIONS]  # [2, C] each
        self._means = [_Mean() for _ in STFT_RESOLUTIONS]

    def add(self, pair: Tensor) -> None:
        """Take in a stretch [2, C, reach + n + reach]."""
        import torch

        from musictool.audio.spectral_distances import magnitudes

        for number, resolution in enumerate(self._resolutions):
            reference, result = seen = magnitudes(pair, resolution)
            parts = torch.stack([reference - result, reference]).square().sum((2, 3))
            self._energies[number] = self._energies[number] + parts.double().numpy()
            logarithms = seen.clamp(min=MAGNITUDE_FLOOR).log()
            self._means[number].add((logarithms[0] - logarithms[1]).abs())

    @property
    def convergence(self) -> float | None:
        """None if the reference is silent."""
        wrong, all = np.moveaxis(np.stack([np.asarray(energies) for energies in self._energies]), 1, 0)
        is_heard = all > 0  # [3, C]
        return float(np.sqrt(wrong[is_heard] / all[is_heard]).mean()) if is_heard.any() else None

    @property
    def log_distance(self) -> float:
        return float(np.mean([mean.value for mean in self._means]))


class _Mean:
    """The mean of numbers that come in many."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, values: Tensor) -> None:
        self._sum += float(values.sum())
        self._count += values.numel()

    @property
    def value(self) -> float:
        return self._sum / self._count
