"""Tells the style of a piano piece: a small convolutional network on piano rolls, the judge of style transfer.

It must judge the music, not the tools that it went through. So every piece, in training and in judgement, goes through
the grid and the velocity bins of scheme `tatum`; loudness counts only against the mean of its window; pedals are not
looked at; and in training pieces are transposed, stretched, thinned and shaken by less than anyone hears. Knows nothing
of the model that it judges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from musictool.symbolic.midi import read_midi
from musictool.symbolic.notes import Notes, Score
from musictool.symbolic.schemes.tatum import STEPS_PER_SECOND, quantize

WINDOW_SECONDS, HOP_SECONDS = 16.0, 8.0  # of judgement: windows, and how far apart they begin
FRAME_SECONDS = 0.04
FRAMES = round(WINDOW_SECONDS / FRAME_SECONDS)
LOWEST_KEY, KEYS = 9, 112  # an octave more than a piano has on either side, for pieces that are transposed
CHANNELS = 3  # of a roll: strokes, what sounds, how loud a stroke is beside the others
VELOCITY_SCALE = 32.0
LEAST_NOTES = 8  # a window with fewer says nothing

MOST_SEMITONES = 12
MOST_STRETCH = 0.1
JITTER_SECONDS = 0.006
MOST_DROPPED = 0.06
LABEL_SMOOTHING = 0.05

Roll = NDArray[np.float32]


class StyleNet(nn.Module):
    """Rolls [B, 3, 112, T] to logits [B, styles]: four convolutions, their mean and maximum over time, a layer."""

    def __init__(self, style_count: int, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = CHANNELS
        for kernel, stride, out in (
            ((13, 5), (4, 2), 1),
            ((3, 5), (2, 2), 2),
            ((3, 3), (2, 2), 3),
            ((3, 3), (2, 2), 4),
        ):
            padding = (kernel[0] // 2, kernel[1] // 2)
            layers += [
                nn.Conv2d(channels, out * width, kernel, stride, padding, bias=False),
                nn.BatchNorm2d(out * width),
                nn.GELU(),
            ]
            channels = out * width
        self.body = nn.Sequential(*layers)
        keys = KEYS
        for key_stride in (4, 2, 2, 2):
            keys = -(-keys // key_stride)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * channels * keys, style_count))

    def forward(self, rolls: Tensor) -> Tensor:
        """Logits of the styles, [B, styles]."""
        hidden = self.body(rolls).flatten(1, 2)  # [B, channels * keys, T / 16]
        return self.head(torch.cat([hidden.mean(-1), hidden.amax(-1)], dim=1))


@dataclass(frozen=True)
class StyleClassifier:
    """A trained network and the names of its outputs."""

    net: StyleNet
    styles: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Write the weights and the names to a file."""
        torch.save({"styles": list(self.styles), "state": self.net.state_dict()}, path)

    @classmethod
    def load(cls, path: Path) -> StyleClassifier:
        """Read what `save` wrote."""
        saved = torch.load(path, weights_only=True)
        net = StyleNet(len(saved["styles"]))
        net.load_state_dict(saved["state"])
        return cls(net.eval(), tuple(saved["styles"]))

    @torch.inference_mode()
    def probabilities(self, notes: Notes) -> NDArray[np.float64]:
        """How much a piece is of each style, float64 [styles]: the geometric mean over its windows, which add up to 1.

        Args:
            notes: as `judged_notes` has them.
        """
        rolls = windows_of(notes)
        if not rolls:
            return np.full(len(self.styles), 1 / len(self.styles))
        logits = torch.log_softmax(self.net(torch.from_numpy(np.stack(rolls))), dim=1).mean(0)
        return torch.softmax(logits, dim=0).double().numpy()

    def style_of(self, notes: Notes) -> str:
        """The style that a piece is most of."""
        return self.styles[int(self.probabilities(notes).argmax())]


# ------------------------------------------------------------------------------------------------------------- rolls


def judged_notes(source: Path | Score) -> Notes:
    """The notes of a piece as scheme `tatum` keeps them, without drums."""
    score = read_midi(source) if isinstance(source, Path) else source
    notes, _ = quantize(score)
    return notes.take(~notes.is_drum).sorted()


def windows_of(notes: Notes) -> list[Roll]:
    """Rolls of the windows of a piece that say something, [3, 112, T] each."""
    starts = np.arange(0.0, max(notes.end_seconds - WINDOW_SECONDS, 0.0) + HOP_SECONDS, HOP_SECONDS)
    windows = (_between(notes, start) for start in starts)
    return [roll(window) for window in windows if len(window) >= LEAST_NOTES]


def _between(notes: Notes, start: float) -> Notes:
    """The notes that begin in a window, with times from its start."""
    first, last = np.searchsorted(notes.onset_seconds, [start, start + WINDOW_SECONDS])
    window = notes.take(slice(first, last))
    return window.with_columns(onset_seconds=window.onset_seconds - start, offset_seconds=window.offset_seconds - start)


def roll(notes: Notes) -> Roll:
    """The piano roll of a window: strokes, what sounds, and a stroke's loudness against the window's mean.

    Args:
        notes: with times from the window's start.

    Returns:
        float32 [3, 112, T].
    """
    result = np.zeros((CHANNELS, KEYS, FRAMES), np.float32)
    on_keys = (notes.pitch >= LOWEST_KEY) & (notes.pitch < LOWEST_KEY + KEYS)
    notes = notes.take(on_keys & (notes.onset_seconds >= 0) & (notes.onset_seconds < WINDOW_SECONDS))
    if not len(notes):
        return result
    key = notes.pitch.astype(int) - LOWEST_KEY
    first = np.minimum((notes.onset_seconds / FRAME_SECONDS).astype(int), FRAMES - 1)
    last = np.clip(np.ceil(notes.offset_seconds / FRAME_SECONDS).astype(int), first + 1, FRAMES)
    edges = np.zeros((KEYS, FRAMES + 1), np.float32)
    np.add.at(edges, (key, first), 1)
    np.add.at(edges, (key, last), -1)
    velocity = notes.velocity.astype(np.float32)
    result[0, key, first] = 1
    result[1] = edges.cumsum(axis=1)[:, :FRAMES] > 0
    result[2, key, first] = np.clip((velocity - velocity.mean()) / VELOCITY_SCALE, -2, 2)
    return result


# ---------------------------------------------------------------------------------------------------------- training


def drawn_window(notes: Notes, generator: np.random.Generator) -> Roll:
    """A window from anywhere in a piece, transposed, stretched, thinned and shaken, as a roll."""
    stretch = float(np.exp(generator.uniform(-MOST_STRETCH, MOST_STRETCH)))
    latest = max(notes.end_seconds - WINDOW_SECONDS / 2, 0.0)
    start = generator.uniform(0, latest)
    first, last = np.searchsorted(notes.onset_seconds, [start, start + WINDOW_SECONDS / stretch])
    window = notes.take(slice(first, last))
    window = window.take(generator.random(len(window)) >= generator.uniform(0, MOST_DROPPED))
    shift = int(generator.integers(-MOST_SEMITONES, MOST_SEMITONES + 1))

    def moved(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        seconds = (seconds - start) * stretch + generator.normal(0, JITTER_SECONDS, len(seconds))
        return np.maximum(np.rint(seconds * STEPS_PER_SECOND) / STEPS_PER_SECOND, 0.0)

    return roll(
        window.with_columns(
            onset_seconds=moved(window.onset_seconds),
            offset_seconds=moved(window.offset_seconds),
            pitch=(window.pitch + shift).astype(np.int16),
        )
    )


def train(
    pieces: Mapping[str, Sequence[Notes]],
    steps: int,
    batch: int,
    seed: int,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> StyleClassifier:
    """Train on windows drawn from all styles alike, and within a style from pieces as they are long.

    Args:
        pieces: notes by style, as `judged_notes` has them.
        steps: how often the weights change.
        batch: windows at a time.
        seed: of the weights and the draws.
        report: called with every step and its loss.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    styles = tuple(pieces)
    weights = {style: _lengths(pieces[style]) for style in styles}
    net = StyleNet(len(styles))
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.15)
    net.train()
    for step in range(steps):
        labels = generator.integers(len(styles), size=batch)
        rolls = []
        for label in labels:
            style = styles[label]
            rolls.append(drawn_window(pieces[style][generator.choice(len(pieces[style]), p=weights[style])], generator))
        logits = net(torch.from_numpy(np.stack(rolls)))
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels), label_smoothing=LABEL_SMOOTHING)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        report(step, loss.item())
    return StyleClassifier(net.eval(), styles)


def _lengths(pieces: Sequence[Notes]) -> NDArray[np.float64]:
    seconds = np.array([max(notes.end_seconds, WINDOW_SECONDS) for notes in pieces])
    return seconds / seconds.sum()
