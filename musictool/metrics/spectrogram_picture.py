"""A picture of two sounds: the log-mel spectrograms of a reference and a result above each other, and their difference.

Both have the same scale, 90 dB down from the loudest bin of either. In the difference red is what the result has too
much and blue what it lacks, white what is alike or too quiet to show in both. Channels are mixed. A long sound has no
more columns than fit, each the mean power of its frames. The same sounds give the same bytes. Needs matplotlib, the
extra `plot`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from musictool.metrics.pictures import plain_matplotlib, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEL_BINS = 128
COLUMNS_MAX = 1500
RANGE_DB, DIFFERENCE_DB = 90.0, 30.0

_LEAST_POWER = 1e-20
_HERTZ = (200, 500, 1000, 2000, 5000, 10_000, 20_000, 40_000)
_SIZE, _DOTS_PER_INCH = (14.0, 9.0), 150  # inches
_LEFT, _WIDTH, _BAR_LEFT, _BAR_WIDTH = 0.06, 0.86, 0.93, 0.012  # shares of the figure, as are these:
_LOWS, _HEIGHT = (0.66, 0.365, 0.07), 0.265
_TITLE_HEIGHT = 0.965


@dataclass(frozen=True, eq=False)
class Spectrograms:
    """What is drawn.

    Attributes:
        reference, result: float [M, columns], decibels; a sine of full scale has about 0.
        rate_hz: of both sounds.
        seconds: how long they are.
    """

    reference: NDArray[np.float64]
    result: NDArray[np.float64]
    rate_hz: int
    seconds: float


def spectrograms_of(blocks: Iterable[NDArray[np.float32]], rate_hz: int, samples: int) -> Spectrograms:
    """The spectrograms of two sounds.

    Args:
        blocks: float32 [2, C, n] each, the reference and the result.
        rate_hz: of both.
        samples: how long they are.
    """
    import torch

    from musictool.audio.spectral_distances import MEL_RESOLUTIONS, in_stretches, magnitudes, mel_matrix

    resolution = MEL_RESOLUTIONS[-1]
    matrix = mel_matrix(resolution, rate_hz, MEL_BINS)
    frames = -(-samples // resolution.hop)
    columns = min(frames, COLUMNS_MAX)
    powers = np.zeros((columns, 2, MEL_BINS))
    frame = 0
    with torch.inference_mode():
        for stretch in in_stretches(block.mean(axis=1) for block in blocks):
            mel = (magnitudes(stretch, resolution) @ matrix).square()  # [2, T, M]
            places = np.arange(frame, frame + mel.shape[1]) * columns // frames
            np.add.at(powers, places, mel.transpose(0, 1).numpy())
            frame += mel.shape[1]
    counts = np.bincount(np.arange(frames) * columns // frames, minlength=columns)
    levels = 10 * np.log10(np.maximum(powers / counts[:, None, None], _LEAST_POWER))
    reference, result = levels.transpose(1, 2, 0)
    return Spectrograms(reference, result, rate_hz, samples / rate_hz)


def draw(file: BinaryIO, spectrograms: Spectrograms, *, title: str = "", format: str = "png") -> None:
    """Draw a picture.

    Args:
        file: a binary file to write it to.
        spectrograms: of both sounds.
        title: a line above.
        format: one of `pictures.PICTURE_FORMATS`.

    Raises:
        MissingError: matplotlib is not installed.
    """
    with plain_matplotlib() as matplotlib:
        save_figure(_figure(matplotlib, spectrograms, title), file, format, _DOTS_PER_INCH)


def _figure(matplotlib: ModuleType, drawn: Spectrograms, title: str) -> Figure:
    figure: Figure = matplotlib.figure.Figure(figsize=_SIZE)
    figure.text(_LEFT, _TITLE_HEIGHT, title, fontsize=13, parse_math=False)
    top = max(float(drawn.reference.max()), float(drawn.result.max()))
    bottom = top - RANGE_DB
    difference = np.maximum(drawn.result, bottom) - np.maximum(drawn.reference, bottom)
    _fill(figure, drawn, 0, "reference", drawn.reference, "magma", (bottom, top))
    _fill(figure, drawn, 1, "result", drawn.result, "magma", (bottom, top))
    axes = _fill(figure, drawn, 2, "result - reference", difference, "RdBu_r", (-DIFFERENCE_DB, DIFFERENCE_DB))
    axes.tick_params(labelbottom=True)
    axes.set_xlabel("seconds")
    return figure


def _fill(
    figure: Figure,
    drawn: Spectrograms,
    row: int,
    name: str,
    levels: NDArray[np.float64],
    colours: str,
    limits: tuple[float, float],
) -> Axes:
    """One row: levels over time and mel frequency, and what their colours mean."""
    from musictool.audio.spectral_distances import mel_edges_hz

    axes = figure.add_axes((_LEFT, _LOWS[row], _WIDTH, _HEIGHT))
    image = axes.imshow(
        levels,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        extent=(0.0, drawn.seconds, 0.0, float(len(levels))),
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
    )
    centres_hz = mel_edges_hz(drawn.rate_hz, len(levels))[1:-1]
    shown = [hertz for hertz in _HERTZ if centres_hz[0] <= hertz <= centres_hz[-1]]
    heights = np.interp(shown, centres_hz, np.arange(len(levels)) + 0.5)
    axes.set_yticks(heights, [f"{hertz // 1000} kHz" if hertz >= 1000 else f"{hertz} Hz" for hertz in shown])
    axes.tick_params(labelsize=8, length=2, labelbottom=False)
    axes.set_title(name, loc="left", fontsize=10, pad=3)
    bar = figure.colorbar(image, cax=figure.add_axes((_BAR_LEFT, _LOWS[row], _BAR_WIDTH, _HEIGHT)))
    bar.ax.tick_params(labelsize=8, length=2)
    bar.ax.set_title("dB", fontsize=8, pad=3)
    return axes
