"""A small net that tells, frame by frame and pitch by pitch, where notes begin, sound and end.

Of the family of Onsets and Frames (Hawthorne et al., 2018; arXiv:1710.11153), with three changes that make it small and
fit for a CPU. Every pitch sees its own harmonics, stacked from a log-frequency spectrogram (Bittner et al., 2017), so
that the same few weights serve all 88 of them and any instrument; time and pitch are read by residual convolutions with
growing dilation (van den Oord et al., 2016) in place of recurrence, so that sound in pieces gives what it gives as a
whole; and onsets and offsets are triangles whose centroid tells the time more finely than a frame (Kong et al., 2021).
Knows nothing of sound but its frames; the decoder of notes is `inference.note_tagging`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from musictool.audio.spectrogram import LogFrequencyConfig

LOWEST_PITCH, PITCHES = 21, 88  # a piano's, as MIDI numbers them
HEADS = ("onset", "frame", "offset", "sounding", "velocity")
_KERNEL = 3


@dataclass(frozen=True)
class NoteThresholds:
    """How sure the net must be, in probabilities.

    Attributes:
        onset: for a note to begin.
        offset: for a note to end while it may still sound.
        frame: for a note to go on.
    """

    onset: float = 0.4
    offset: float = 0.4
    frame: float = 0.3


@dataclass(frozen=True)
class NoteTaggerConfig:
    """The numbers of a note tagger.

    Attributes:
        channels: of each pitch and frame, in every layer.
        time_dilations: of the blocks, in frames.
        pitch_dilations: of the blocks, in semitones: 12 and 19 look at the octave and the twelfth.
        harmonics: of a pitch that it sees.
        thresholds: of the decoder, found on held-out renderings of the training data.
        lag_seconds: by how much the net's onsets and offsets come late, taken off by the decoder.
        front_end: the spectrogram.
    """

    family: ClassVar[str] = "note-tagger"

    channels: int = 48
    time_dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 1, 2, 4, 8, 16)
    pitch_dilations: tuple[int, ...] = (1, 12, 19, 1, 12, 1, 12, 19, 1, 12)
    harmonics: tuple[float, ...] = (0.5, 1, 2, 3, 4, 5, 6, 8)
    thresholds: NoteThresholds = field(default_factory=NoteThresholds)
    front_end: LogFrequencyConfig = field(default_factory=LogFrequencyConfig)

    def __post_init__(self) -> None:
        if len(self.time_dilations) != len(self.pitch_dilations):
            raise ValueError("time_dilations and pitch_dilations must be equally many: one pair for each block")

    @property
    def context_frames(self) -> int:
        """How far from a frame what the net says of it can depend on."""
        return sum(self.time_dilations) + len(self.time_dilations) + 1


class NoteLogits(NamedTuple):
    """What the net says, before the sigmoid; float [B, T, 88] each.

    Attributes:
        onset, offset: that a key goes down, or up, near this frame.
        frame: that the key is down.
        sounding: that the note sounds, be it by its key or by the pedal.
        velocity: of the note that begins here, as a share of 127.
    """

    onset: Tensor
    frame: Tensor
    offset: Tensor
    sounding: Tensor
    velocity: Tensor


def harmonic_bins(config: NoteTaggerConfig) -> Tensor:
    """The bins that a pitch sees: three around each harmonic, M (a bin of silence) where there is none.

    Returns:
        int64 [88, harmonics * 3].
    """
    front_end = config.front_end
    per_semitone = front_end.bins_per_octave / 12
    pitches = torch.arange(PITCHES)[:, None, None] + LOWEST_PITCH
    first = 69 + 12 * math.log2(front_end.low_hz / 440)  # the pitch of bin 0
    harmonics = 12 * torch.log2(torch.tensor(config.harmonics))[:, None]
    centre = ((pitches + harmonics - first) * per_semitone).round().long()
    bins = centre + torch.tensor([-1, 0, 1])  # [88, harmonics, 3]
    return torch.where((bins >= 0) & (bins < front_end.bins), bins, front_end.bins).flatten(1)


def _within(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution over the frames whose neighbours are all there; [B, C, T, 88] -> [B, D, T - 2 * dilation, 88]."""
    of = convolution
    return functional.conv2d(x, of.weight, of.bias, padding=(0, of.dilation[1]), dilation=of.dilation)


class _ResidualBlock(nn.Module):
    """x + conv(relu(conv(norm(x)))), the first of them dilated; [B, D, T, 88]."""

    def __init__(self, channels: int, time_dilation: int, pitch_dilation: int) -> None:
        super().__init__()
        dilation = (time_dilation, pitch_dilation)
        self.reach = time_dilation + 1
        self.norm = nn.LayerNorm(channels)
        self.wide = nn.Conv2d(channels, channels, _KERNEL, padding=dilation, dilation=dilation)
        self.near = nn.Conv2d(channels, channels, _KERNEL, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.near(functional.relu(self.wide(self._normed(x))))

    def within(self, x: Tensor) -> Tensor:
        """Of the frames whose neighbours are all there; `reach` fewer on both sides."""
        middle = x[:, :, self.reach : x.shape[2] - self.reach]
        return middle + _within(self.near, functional.relu(_within(self.wide, self._normed(x))))

    def _normed(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # over D, which lies innermost in memory


class _InTurn:
    """A layer for frames that come a few at a time: it keeps of those before what it still needs.

    Args:
        layer: [B, C, T + 2 * reach, 88] -> [B, D, T, 88].
        reach: how far it looks; what it says comes as much later.
    """

    def __init__(self, layer: Callable[[Tensor], Tensor], reach: int) -> None:
        self._layer = layer
        self._reach = reach
        self._past: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """[B, C, T, 88] -> [B, D, T, 88]; the first know nothing of what was before."""
        if self._past is None:
            shape = (x.shape[0], x.shape[1], 2 * self._reach, x.shape[3])
            self._past = x.new_zeros(shape).contiguous(memory_format=torch.channels_last)
        seen = torch.cat([self._past, x], 2)
        self._past = seen[:, :, x.shape[2] :]
        return self._layer(seen)


class NoteTagger(nn.Module):
    """The model; frames in, logits out.

    Args:
        config: its numbers.
    """

    bins: Tensor

    def __init__(self, config: NoteTaggerConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("bins", harmonic_bins(config), persistent=False)
        seen = self.bins.shape[1] * len(config.front_end.windows_samples)
        self.stem = nn.Conv2d(seen, config.channels, _KERNEL, padding=1)
        dilations = zip(config.time_dilations, config.pitch_dilations, strict=True)
        self.blocks = nn.ModuleList(_ResidualBlock(config.channels, *pair) for pair in dilations)
        self.norm = nn.LayerNorm(config.channels)
        self.head = nn.Linear(config.channels, len(HEADS))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        self._reset()

    def _reset(self) -> None:
        """Blocks begin near the identity, and no note sounds."""
        for block in self.blocks:
            assert isinstance(block, _ResidualBlock)
            nn.init.kaiming_normal_(block.wide.weight, nonlinearity="relu")
            nn.init.normal_(block.near.weight, std=0.3 / math.sqrt(self.config.channels * _KERNEL**2))
        nn.init.constant_(self.head.bias, -4.0)

    def forward(self, frames: Tensor) -> NoteLogits:
        """Tag frames.

        Args:
            frames: float [B, T, M, windows], of `LogFrequency`.

        Returns:
            Logits of each head. Those of frames nearer to an end than `context_frames` take silence to lie beyond it.
        """
        x = functional.relu(self.stem(self._seen(frames)))
        for block in self.blocks:
            x = block(x)
        return self._heads(x)

    def tag(self, frames: Tensor, frames_at_once: int) -> NoteLogits:
        """Tag the frames whose neighbours are all there, a few at a time.

        Each layer keeps of the frames before what it still needs, so that nothing is computed twice and what lies
        between the layers fits a processor's cache:
        in fp32 on four threads 1.4 times as fast as `forward` over stretches.

        Args:
            frames: float [B, T, M, windows]; T is over twice the `context_frames`.
            frames_at_once: of the T.

        Returns:
            What `forward` says of all frames but the first and the last `context_frames`.
        """
        stem = _InTurn(partial(_within, self.stem), 1)
        blocks = [_InTurn(block.within, block.reach) for block in self.blocks if isinstance(block, _ResidualBlock)]
        said = []
        for some in frames.split(frames_at_once, 1):
            x = functional.relu(stem(self._seen(some)))
            for block in blocks:
                x = block(x)
            said.append(self._heads(x))
        around = 2 * self.config.context_frames
        return NoteLogits(*(torch.cat(logits, 1)[:, around:] for logits in zip(*said, strict=True)))

    def _seen(self, frames: Tensor) -> Tensor:
        """[B, T, M, windows] -> [B, bins * windows, T, 88]: to each pitch what it sees."""
        padded = functional.pad(frames, (0, 0, 0, 1))
        seen = padded[:, :, self.bins.flatten()]  # [B, T, M + 1, windows] -> [B, T, 88 * bins, windows]
        seen = seen.unflatten(2, self.bins.shape).flatten(3)  # [B, T, 88, bins * windows]
        return seen.permute(0, 3, 1, 2)

    def _heads(self, x: Tensor) -> NoteLogits:
        heads = self.head(self.norm(x.permute(0, 2, 3, 1)))  # [B, T, 88, heads]
        return NoteLogits(*heads.float().unbind(-1))
