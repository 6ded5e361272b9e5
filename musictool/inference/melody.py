"""The melody of sound, as MusicGen follows one: the strongest of twelve pitch classes in every eighth of a second.

The numbers are those of the published models (Copet et al., 2023, section 2.4), and so is what is found: chroma as
librosa has them, of windows of half a second. Sound is read in blocks, and what is found does not depend on how it
was cut. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from musictool.audio.reading import open_audio
from musictool.audio.resampling import Resampler, remixed

RATE_HZ = 32_000
WINDOW_SAMPLES = 16_384
HOP_SAMPLES = 4_096
FRAME_RATE_HZ = RATE_HZ / HOP_SAMPLES
PITCH_CLASSES = 12
_A4_HZ = 440.0
_OCTAVE_CENTRE, _OCTAVE_WIDTH = 5.0, 2.0
_NEAR_SILENCE = 1e-6
_BLOCK_SECONDS = 8.0


class Melody(NamedTuple):
    """A sound file's melody.

    Attributes:
        chroma: float32 [F, 12], a one in each frame, from C on.
        sha256: of the file, in hexadecimal.
    """

    chroma: Tensor
    sha256: str


def read_melody(path: Path) -> Melody:
    """The melody of a sound file, of any rate and channels.

    Raises:
        InputError: it can't be read.
    """
    with open_audio(path, str(path)) as reader:
        resampler = Resampler(reader.rate_hz, RATE_HZ, 1)

        def blocks() -> Iterable[NDArray[np.float32]]:
            for block in reader.blocks(round(_BLOCK_SECONDS * reader.rate_hz)):
                yield resampler.push(remixed(block, 1))[:, 0]
            yield resampler.finish()[:, 0]

        chroma = chroma_of(blocks())
        return Melody(chroma, reader.source_sha256)


def chroma_of(blocks: Iterable[NDArray[np.float32]]) -> Tensor:
    """The strongest pitch class in each frame.

    Args:
        blocks: sound, float32 [n] each, at `RATE_HZ`.

    Returns:
        float32 [F, 12]; a frame stands in the middle of its window, the first at the beginning of the sound.
    """
    half = WINDOW_SAMPLES // 2
    held, frames, begin = torch.zeros(0), [], True
    for block in blocks:
        held = torch.cat([held, torch.from_numpy(block)])
        if begin and len(held) >= WINDOW_SAMPLES:  # before the sound stands its own mirror image
            held, begin = torch.cat([held[1 : half + 1].flip(0), held]), False
        if not begin:
            ready = max(0, (len(held) - WINDOW_SAMPLES) // HOP_SAMPLES + 1)
            frames.append(_frames(held, ready))
            held = held[ready * HOP_SAMPLES :]
    if begin:
        missing = max(0, WINDOW_SAMPLES - len(held))
        held = functional.pad(held, (missing // 2, missing - missing // 2))
        held = torch.cat([held[1 : half + 1].flip(0), held])
    held = torch.cat([held, held[-half - 1 : -1].flip(0)])
    frames.append(_frames(held, (len(held) - WINDOW_SAMPLES) // HOP_SAMPLES + 1))
    return torch.cat(frames)


def _frames(sound: Tensor, count: int) -> Tensor:
    """The first frames of sound that begins where the first window does, float32 [count, 12]."""
    if not count:
        return torch.zeros(0, PITCH_CLASSES)
    windows = sound.unfold(0, WINDOW_SAMPLES, HOP_SAMPLES)[:count] * torch.hann_window(WINDOW_SAMPLES)
    power = torch.fft.rfft(windows).abs().square() / torch.hann_window(WINDOW_SAMPLES).square().sum()
    strength = power @ pitch_class_filters().T  # [count, W / 2 + 1] @ [W / 2 + 1, 12]
    loudest = strength.abs().amax(1, keepdim=True).clamp(min=_NEAR_SILENCE)
    return functional.one_hot((strength / loudest).argmax(1), PITCH_CLASSES).float()


@lru_cache(maxsize=1)
def pitch_class_filters() -> Tensor:
    """How much a frequency of a window counts for a pitch class, as librosa has it: float32 [12, W / 2 + 1]."""
    bins = WINDOW_SAMPLES
    octaves = np.log2(np.linspace(0, RATE_HZ, bins, endpoint=False)[1:] / (_A4_HZ / 16))
    places = PITCH_CLASSES * np.concatenate([octaves[:1] - 1.5, octaves])  # of 0 Hz, far below the first
    widths = np.append(np.maximum(np.diff(places), 1.0), 1.0)
    distances = places - np.arange(PITCH_CLASSES)[:, None]
    half = PITCH_CLASSES // 2
    distances = np.remainder(distances + half + 10 * PITCH_CLASSES, PITCH_CLASSES) - half
    filters = np.exp(-0.5 * (2 * distances / widths) ** 2)
    filters /= np.sqrt((filters**2).sum(0))
    filters *= np.exp(-0.5 * ((places / PITCH_CLASSES - _OCTAVE_CENTRE) / _OCTAVE_WIDTH) ** 2)
    from_c = np.roll(filters, -3, axis=0)  # they begin at A
    return torch.from_numpy(np.ascontiguousarray(from_c[:, : bins // 2 + 1])).float()
