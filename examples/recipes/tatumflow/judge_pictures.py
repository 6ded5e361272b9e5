"""Pictures of style transfer: style and content against strength, and piano rolls before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from musictool.metrics.pictures import COLOURS, plain_matplotlib, save_figure
from musictool.symbolic.notes import Notes

if TYPE_CHECKING:
    from judge import Verdict

DOTS_PER_INCH = 100
CURVES = {"style_share": "target style", "profile_similarity": "pitch classes", "chord_similarity": "chords"}


def draw_curves(
    judged: Mapping[str, Sequence[Verdict]],
    least_kept: Mapping[str, tuple[float, float]],
    least_share: float,
    picture: Path,
) -> None:
    """Draw for each direction the share of the target style and the similarities against strength.

    Dashed lines are what has to be reached, dotted ones the rule's.

    Args:
        judged: verdicts by direction; those whose name is a number are drawn.
        least_kept: of profile and chords, by direction.
        least_share: of the target style.
        picture: a PNG file.
    """
    columns = min(len(judged), 3)
    rows = -(-len(judged) // columns)
    with plain_matplotlib() as matplotlib:
        figure = matplotlib.figure.Figure(figsize=(5 * columns, 3.6 * rows), layout="constrained")
        for place, (direction, verdicts) in enumerate(judged.items()):
            axes = figure.add_subplot(rows, columns, place + 1)
            marks = (least_share, *least_kept[direction])
            points = sorted((float(entry.name), entry) for entry in verdicts if _is_number(entry.name))
            rule = next(entry for entry in verdicts if entry.name == "rule")
            for (field, label), colour, mark in zip(CURVES.items(), COLOURS, marks, strict=False):
                strength = [point[0] for point in points]
                values = [getattr(entry, field) for _, entry in points]
                axes.plot(strength, values, "o-", color=colour, label=label)
                axes.axhline(mark, color=colour, linestyle="--", linewidth=0.8)
                axes.axhline(getattr(rule, field), color=colour, linestyle=":", linewidth=0.8)
            axes.set(title=direction, xlabel="strength", ylim=(0, 1.02))
            if not place:
                axes.legend(loc="lower left", fontsize="small")
        with picture.open("wb") as file:
            save_figure(figure, file, "png", DOTS_PER_INCH)


def draw_rolls(pieces: Sequence[tuple[str, Notes, Notes]], start: float, seconds: float, picture: Path) -> None:
    """Draw stretches of pieces, before on the left and after on the right; colour is loudness.

    Args:
        pieces: names, and notes before and after.
        start: where the stretch begins, in seconds.
        seconds: how long it is.
        picture: a PNG file.
    """
    with plain_matplotlib() as matplotlib:
        figure = matplotlib.figure.Figure(figsize=(22, 3.6 * len(pieces)), layout="constrained")
        for row, (name, before, after) in enumerate(pieces):
            for column, (title, notes) in enumerate(((name, before), ("after", after))):
                axes = figure.add_subplot(len(pieces), 2, 2 * row + column + 1)
                _draw_roll(matplotlib, axes, notes, start, seconds)
                axes.set_title(title, fontsize="small")
        with picture.open("wb") as file:
            save_figure(figure, file, "png", DOTS_PER_INCH)


def _draw_roll(matplotlib: Any, axes: Any, notes: Notes, start: float, seconds: float) -> None:
    heard = notes.take((notes.onset_seconds < start + seconds) & (notes.offset_seconds > start))
    axes.barh(
        heard.pitch,
        np.maximum(heard.offset_seconds - heard.onset_seconds, 0.02),
        left=heard.onset_seconds,
        height=0.9,
        color=matplotlib.colormaps["plasma"](heard.velocity / 127),
    )
    axes.set(xlim=(start, start + seconds), ylim=(21, 108), yticks=range(24, 109, 12))
    axes.grid(alpha=0.3)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
