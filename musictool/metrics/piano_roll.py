"""A picture of a transcription over its reference: two piano rolls on the same axes, right and wrong told by colour.

Every pitch has a lane. Its upper half holds the reference notes and its lower half the estimated ones, so that a note
that was found shows as two bars, and how they begin and end beside each other. Long pieces wrap into rows. Drums have
lanes of their own below. The same notes give the same bytes. Needs matplotlib, the extra `plot`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from musictool.metrics.note_matching import Tolerances, intervals, match_notes
from musictool.metrics.pictures import plain_matplotlib, save_figure
from musictool.symbolic.notes import Notes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of Okabe and Ito's, which the colour-blind tell apart.
TRUE, FOUND, MISSED, EXTRA = "#0072B2", "#56B4E9", "#222222", "#D55E00"
_LEGEND = {TRUE: "reference, above: found", MISSED: "missed", FOUND: "estimate, below: right", EXTRA: "extra"}

ROW_SECONDS = 20.0  # about
ROWS_MAX = 24  # longer pieces get longer rows
_DOTS_PER_INCH = 150
_WIDTH, _LEFT, _RIGHT = 14.0, 0.7, 0.2  # inches, as everything below
_TITLE, _KEY, _TOP, _BOTTOM, _BETWEEN = 0.25, 0.52, 0.75, 0.55, 0.35
_LANE, _ROW_RANGE = 0.062, (1.8, 6.0)
_SHORTEST_SHARE = 0.0015  # of a row: a shorter note is drawn as long

_BLACK_KEYS = (1, 3, 6, 8, 10)


def draw(
    file: BinaryIO,
    reference: Notes,
    estimate: Notes,
    *,
    title: str = "",
    tolerances: Tolerances | None = None,
    format: str = "png",
) -> None:
    """Draw a picture.

    Args:
        file: a binary file to write it to.
        reference: what is true.
        estimate: what was found.
        title: a line above.
        tolerances: how far a note may begin from its reference and still count as found.
        format: one of `pictures.PICTURE_FORMATS`.

    Raises:
        MissingError: matplotlib is not installed.
        InputError: too many notes in one place to be matched.
    """
    lanes = _Lanes.of(reference, estimate)
    bars = list(_bars(reference, estimate, tolerances or Tolerances(), lanes))
    with plain_matplotlib() as matplotlib:
        save_figure(_figure(matplotlib, bars, lanes, title), file, format, _DOTS_PER_INCH)


@dataclass(frozen=True)
class _Lanes:
    """Which height means what: pitches at their own numbers, drums below them, each in a lane twice as high.

    Attributes:
        low, high: the first and last pitch there is room for.
        drums: the drums there are, the highest lane first.
    """

    low: int
    high: int
    drums: tuple[int, ...]

    @classmethod
    def of(cls, *tables: Notes) -> _Lanes:
        notes = Notes.concatenate(tables)
        pitch = notes.pitch[~notes.is_drum].astype(int)
        drums = tuple(np.unique(notes.pitch[notes.is_drum])[::-1].tolist())
        if len(pitch):
            return cls(int(pitch.min()) - 1, int(pitch.max()) + 1, drums)
        return cls(60, 59 if drums else 72, drums)

    @property
    def bottom(self) -> float:
        return self.low - 0.5 - 2 * len(self.drums)

    @property
    def top(self) -> float:
        return self.high + 0.5

    def heights(self, notes: Notes) -> NDArray[np.float64]:
        """The middle of each note's lane, [n]."""
        height = notes.pitch.astype(np.float64)
        for rank, drum in enumerate(self.drums):
            height[notes.is_drum & (notes.pitch == drum)] = self._height_of_drum(rank)
        return height

    def ticks(self) -> dict[float, str]:
        """Heights that bear a name: every C and G, the white keys between if there is room, and drums."""
        named = [*range(0, 128, 12), *range(7, 128, 12)]
        if self.top - self.bottom <= 15:
            named = [pitch for pitch in range(128) if pitch % 12 not in _BLACK_KEYS]
        names = {float(pitch): f"{'C_D_EF_G_A_B'[pitch % 12]}{pitch // 12 - 1}" for pitch in named}
        ticks = {height: name for height, name in names.items() if self.low <= height <= self.high}
        return {**ticks, **{self._height_of_drum(rank): f"drum {drum}" for rank, drum in enumerate(self.drums)}}

    def _height_of_drum(self, rank: int) -> float:
        return self.low - 1.5 - 2 * rank


@dataclass(frozen=True)
class _Bars:
    """Bars of one colour: `left`, `right`, `low` and `high` [n], in seconds and lanes."""

    colour: str
    left: NDArray[np.float64]
    right: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, notes: Notes, lanes: _Lanes, colour: str, *, is_above: bool) -> _Bars:
        """The bars of some notes, in the upper or the lower half of their lanes."""
        inner, outer = (0.03, 0.45) if is_above else (-0.45, -0.03)
        middle, height = lanes.heights(notes), np.where(notes.is_drum, 2, 1)
        left, right = intervals(notes).T
        return cls(colour, left, right, middle + inner * height, middle + outer * height)

    def corners(self, start: float, seconds: float) -> list[NDArray[np.float64]]:
        """Those that lie in a row, as polygons [4, 2]."""
        right = np.maximum(self.right, self.left + seconds * _SHORTEST_SHARE)
        shown = (right > start) & (self.left < start + seconds)
        left, right, low, high = self.left[shown], right[shown], self.low[shown], self.high[shown]
        return list(np.stack([left, low, left, high, right, high, right, low], axis=1).reshape(-1, 4, 2))


def _bars(reference: Notes, estimate: Notes, tolerances: Tolerances, lanes: _Lanes) -> Iterator[_Bars]:
    is_found, is_right = np.zeros(len(reference), bool), np.zeros(len(estimate), bool)
    for is_drum in (False, True):
        rows, others = np.flatnonzero(reference.is_drum == is_drum), np.flatnonzero(estimate.is_drum == is_drum)
        matched = match_notes(reference.take(rows), estimate.take(others), tolerances, with_offsets=False)
        is_found[rows[matched[:, 0]]] = True
        is_right[others[matched[:, 1]]] = True
    yield _Bars.of(reference.take(is_found), lanes, TRUE, is_above=True)
    yield _Bars.of(reference.take(~is_found), lanes, MISSED, is_above=True)
    yield _Bars.of(estimate.take(is_right), lanes, FOUND, is_above=False)
    yield _Bars.of(estimate.take(~is_right), lanes, EXTRA, is_above=False)


def _figure(matplotlib: ModuleType, bars: Sequence[_Bars], lanes: _Lanes, title: str) -> Figure:
    end = max((float(some.right.max()) for some in bars if len(some.right)), default=0.0)
    rows = min(max(1, round(end / ROW_SECONDS)), ROWS_MAX)
    seconds = max(end / rows, 1.0)
    row_height = min(max((lanes.top - lanes.bottom) * _LANE, _ROW_RANGE[0]), _ROW_RANGE[1])
    height = _TOP + rows * row_height + (rows - 1) * _BETWEEN + _BOTTOM
    figure: Figure = matplotlib.figure.Figure(figsize=(_WIDTH, height))
    for row in range(rows):
        top = height - _TOP - row * (row_height + _BETWEEN)
        box = (_LEFT / _WIDTH, (top - row_height) / height, 1 - (_LEFT + _RIGHT) / _WIDTH, row_height / height)
        axes = figure.add_axes(box)
        _fill_row(axes, bars, lanes, row * seconds, seconds)
    axes.set_xlabel("seconds")
    figure.text(_LEFT / _WIDTH, 1 - _TITLE / height, title, fontsize=13, va="center", parse_math=False)
    _legend(figure, bars, height)
    return figure


def _fill_row(axes: Axes, bars: Iterable[_Bars], lanes: _Lanes, start: float, seconds: float) -> None:
    """One row: a keyboard's stripes, and the bars over them."""
    from matplotlib.collections import PolyCollection
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(start, start + seconds)
    axes.set_ylim(lanes.bottom, lanes.top)
    for pitch in range(lanes.low, lanes.high + 1):
        if pitch % 12 in _BLACK_KEYS:
            axes.axhspan(pitch - 0.5, pitch + 0.5, color="#F1F1F1", linewidth=0, zorder=0)
        if pitch % 12 == 0:
            axes.axhline(pitch - 0.5, color="#BBBBBB", linewidth=0.6, zorder=1)
    if lanes.drums:
        axes.axhline(lanes.low - 0.5, color="#888888", linewidth=0.8, zorder=1)
    for some in bars:
        axes.add_collection(PolyCollection(some.corners(start, seconds), facecolors=some.colour, zorder=2))
    ticks = lanes.ticks()
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.xaxis.set_major_locator(MaxNLocator(24, steps=[1, 2, 5, 10], integer=True))
    axes.tick_params(axis="both", labelsize=8, length=2)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.5, zorder=0)
    axes.set_axisbelow(True)


def _legend(figure: Figure, bars: Sequence[_Bars], height: float) -> None:
    from matplotlib.patches import Patch

    counts = {some.colour: len(some.left) for some in bars}
    patches = [Patch(color=colour, label=f"{name} {counts[colour]:,}") for colour, name in _LEGEND.items()]
    figure.legend(
        handles=patches,
        loc="center left",
        bbox_to_anchor=(_LEFT / _WIDTH, 1 - _KEY / height),
        ncols=len(patches),
        frameon=False,
        fontsize=9,
        handlelength=1.2,
        borderaxespad=0,
    )
