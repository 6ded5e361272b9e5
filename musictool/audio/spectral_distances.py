"""What two sounds are compared by: spectrograms at several resolutions, as functions that can be differentiated.

**Mel.** Windows of 2^5 to 2^11 samples, a quarter of a window from frame to frame: the resolutions of EnCodec (Défossez
et al., 2022, arXiv:2210.13438). Hann windows; magnitudes, scaled so that a sine of full scale has 1; triangles of HTK's
mel scale from 0 Hz to half the rate, at least two steps of the transform wide, so that none is empty: 64 of them, but
5, 10, 20 and 40 for the four shortest windows. In their logarithms to base 10, 1e-5, which is 100 dB below full scale,
stands in place of anything less.

**STFT.** The resolutions of Parallel WaveGAN (Yamamoto et al., 2020, arXiv:1910.11480): transforms of 1024, 2048 and
512 samples, hops of 120, 240 and 50, Hann windows of 600, 1200 and 240 in their middle. Magnitudes are not scaled.

Frames are centred on the first sample and on every hop after it that lies in the sound. All these numbers of samples
are the same whatever the rate. Sound is looked at in stretches, each with what lies around it. Knows no files, and not
what is made of the spectrograms of two sounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

MEL_FLOOR = 1e-5
_BINS_MAX, _WINDOW_SAMPLES_A_BIN = 64, 6.4
_MEL_BREAK_HZ, _MEL_SCALE = 700.0, 1127.0  # HTK's


@dataclass(frozen=True)
class Resolution:
    """How finely to look at sound, in samples.

    Attributes:
        transform: of the Fourier transform.
        hop: from frame to frame.
        window: of the Hann window, in the middle of the transform.
    """

    transform: int
    hop: int
    window: int


MEL_RESOLUTIONS = tuple(Resolution(2**power, 2**power // 4, 2**power) for power in range(5, 12))
STFT_RESOLUTIONS = (Resolution(1024, 120, 600), Resolution(2048, 240, 1200), Resolution(512, 50, 240))
_ALL = (*MEL_RESOLUTIONS, *STFT_RESOLUTIONS)

REACH_SAMPLES = max(resolution.transform for resolution in _ALL) // 2
"""How far the longest frame reaches from its centre: so much of the sound lies on each side of a stretch."""

_STRETCH_SAMPLES = math.lcm(*(resolution.hop for resolution in _ALL))  # so no frame is in two


def in_stretches(blocks: Iterable[NDArray[np.float32]]) -> Iterator[Tensor]:
    """Cut sound into stretches with what lies around them, silence before its start and after its end.

    Args:
        blocks: float32 [..., n] each, of any length.

    Yields:
        float32 [..., reach + n + reach]; the frames of all stretches are those of the whole sound.
    """
    whole = _STRETCH_SAMPLES + 2 * REACH_SAMPLES
    pending: list[NDArray[np.float32]] = []
    held = 0
    for block in _in_silence(blocks):
        pending.append(block)
        held += block.shape[-1]
        if held < whole:
            continue
        joined = np.concatenate(pending, axis=-1)
        while joined.shape[-1] >= whole:
            yield torch.from_numpy(joined[..., :whole])
            joined = joined[..., _STRETCH_SAMPLES:]
        pending, held = [joined], joined.shape[-1]
    if held > 2 * REACH_SAMPLES:
        yield torch.from_numpy(np.concatenate(pending, axis=-1))


def _in_silence(blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    silence: NDArray[np.float32] | None = None
    for block in blocks:
        if silence is None:
            silence = np.zeros((*block.shape[:-1], REACH_SAMPLES), np.float32)
            yield silence
        yield block
    if silence is not None:
        yield silence


def magnitudes(stretch: Tensor, resolution: Resolution) -> Tensor:
    """The magnitudes of a stretch's frames.

    Args:
        stretch: float [..., reach + N + reach].
        resolution: of the frames.

    Returns:
        float [..., T, transform / 2 + 1], a frame for each hop that begins in the N samples.
    """
    size, hop = resolution.transform, resolution.hop
    count = -(-(stretch.shape[-1] - 2 * REACH_SAMPLES) // hop)
    first = REACH_SAMPLES - size // 2
    seen = stretch[..., first : first + (count - 1) * hop + size]
    beside = (size - resolution.window) // 2
    taper = functional.pad(torch.hann_window(resolution.window).to(stretch), (beside, beside))
    return torch.fft.rfft(seen.unfold(-1, size, hop) * taper).abs()


def mel_edges_hz(rate_hz: int, bins: int) -> NDArray[np.float64]:
    """Where mel bins begin, have their middle and end, evenly from 0 Hz to half the rate: [M + 2]."""
    top_mel = _MEL_SCALE * math.log1p(rate_hz / 2 / _MEL_BREAK_HZ)
    return _MEL_BREAK_HZ * np.expm1(np.linspace(0.0, top_mel, bins + 2) / _MEL_SCALE)


def mel_matrix(resolution: Resolution, rate_hz: int, bins: int | None = None) -> Tensor:
    """What turns magnitudes into mel bins, in which a sine of full scale has about 1.

    Args:
        resolution: of the magnitudes.
        rate_hz: of the sound.
        bins: M; as many as are compared by default.

    Returns:
        float32 [transform / 2 + 1, M].
    """
    step_hz = rate_hz / resolution.transform
    bins = bins or min(_BINS_MAX, int(resolution.window / _WINDOW_SAMPLES_A_BIN))
    edges = torch.from_numpy(mel_edges_hz(rate_hz, bins))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    frequencies = torch.arange(resolution.transform // 2 + 1)[:, None] * step_hz
    rising = 1 - (centre - frequencies) / (centre - low).clamp(min=step_hz)
    falling = 1 - (frequencies - centre) / (high - centre).clamp(min=step_hz)
    triangles = torch.minimum(rising, falling).clamp(min=0.0)
    return (triangles * 2 / torch.hann_window(resolution.window).sum()).float()


def log_mel(stretch: Tensor, resolution: Resolution, matrix: Tensor) -> Tensor:
    """The logarithms to base 10 of a stretch's mel bins.

    Args:
        stretch: float [..., reach + N + reach].
        resolution: one of `MEL_RESOLUTIONS`.
        matrix: its `mel_matrix`.

    Returns:
        float [..., T, M].
    """
    return (magnitudes(stretch, resolution) @ matrix).clamp(min=MEL_FLOOR).log10()
