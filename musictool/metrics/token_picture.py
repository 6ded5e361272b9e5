"""A picture of how well a model predicts tokens: by part, by temperature, on its own, and what its pieces quote.

Drawn of the record that `mtk eval tokens` writes, a panel for each of the things that it has. The same record gives the
same bytes. Needs matplotlib, the extra `plot`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, BinaryIO

from musictool.metrics.pictures import COLOURS, plain_matplotlib, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL = 5.0, 3.2  # inches
_DOTS_PER_INCH = 130
_PARTS_UPRIGHT = 9  # more names than so many are written aslant
_RUN_BINS = 24

_Panel = Callable[["Axes", Mapping[str, Any]], None]


def draw(file: BinaryIO, record: Mapping[str, Any], *, format: str = "png") -> None:
    """Draw a picture.

    Args:
        file: a binary file to write it to.
        record: as `mtk eval tokens --json` writes it.
        format: one of `pictures.PICTURE_FORMATS`.

    Raises:
        MissingError: matplotlib is not installed.
    """
    panels = _panels(record)
    columns = math.ceil(math.sqrt(max(1, len(panels))))
    rows = math.ceil(max(1, len(panels)) / columns)
    with plain_matplotlib() as matplotlib:
        size = _PANEL[0] * columns, _PANEL[1] * rows
        figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
        for number, (title, fill) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(rows, columns, number)
            axes.set_title(title, fontsize=10, loc="left", parse_math=False)
            axes.grid(axis="y", color="#DDDDDD", linewidth=0.5)
            axes.set_axisbelow(True)
            axes.tick_params(labelsize=8)
            fill(axes, record)
        save_figure(figure, file, format, _DOTS_PER_INCH)


def _panels(record: Mapping[str, Any]) -> dict[str, _Panel]:
    """What there is to be drawn, by its title."""
    panels: dict[str, _Panel] = {}
    if record["parts"]:
        panels["bits of a token, by part"] = _draw_parts
        panels["bits of a token, by temperature"] = _draw_temperatures
    if record["continued"] is not None and record["continued"]["pieces"]:
        panels["share of tokens as in the real piece, after the prompt"] = _draw_agreement
        panels["bits of how often tokens occur"] = _draw_entropies
    if record["against"] is not None and record["against"]["tokens"] is not None:
        panels["longest runs in common with the corpus"] = _draw_runs
    return panels


def _draw_parts(axes: Axes, record: Mapping[str, Any]) -> None:
    names = [row["part"] for row in record["parts"]]
    _draw_bars(axes, names, [row["cross_entropy_bits"] for row in record["parts"]])
    for number, row in enumerate(record["parts"]):
        axes.annotate(f"{row['top_1']:.0%}", (number, row["cross_entropy_bits"]), ha="center", va="bottom", fontsize=7)
    axes.set_xlabel("share of right guesses above each", fontsize=8)


def _draw_temperatures(axes: Axes, record: Mapping[str, Any]) -> None:
    rows = record["temperatures"]
    temperatures = [row["temperature"] for row in rows]
    axes.plot(temperatures, [row["cross_entropy_bits"] for row in rows], color=COLOURS[0], marker="o", label="all")
    if len(record["parts"]) <= len(COLOURS):
        for number, colour in zip(range(len(record["parts"])), cycle(COLOURS[1:])):
            values = [row["parts"][number]["cross_entropy_bits"] for row in rows]
            axes.plot(temperatures, values, color=colour, linewidth=0.8, label=record["parts"][number]["part"])
        _add_legend(axes)
    axes.set_xlabel("temperature", fontsize=8)


def _draw_agreement(axes: Axes, record: Mapping[str, Any]) -> None:
    continued = record["continued"]
    curves = [("guessed after the real ones", continued["teacher_forced"])]
    curves += [(_name_of(way["temperature"]), way) for way in continued["made"]]
    for (name, curve), colour in zip(curves, cycle(COLOURS)):
        shares = [math.nan if share is None else share for share in curve["agreement_by_position"]]
        width = continued["length"] / len(shares)
        axes.plot([(number + 0.5) * width for number in range(len(shares))], shares, color=colour, label=name)
    axes.set_ylim(0, 1)
    axes.set_xlabel("tokens, or frames, after the prompt", fontsize=8)
    _add_legend(axes)


def _draw_entropies(axes: Axes, record: Mapping[str, Any]) -> None:
    continued = record["continued"]
    made = continued["made"]
    names = ["real", *(_name_of(way["temperature"]) for way in made)]
    _draw_bars(axes, names, [some["entropy_bits"] or 0.0 for some in (continued["real"], *made)], "entropy")
    places = range(1, len(names))
    axes.plot(places, [way["kl_bits"] or 0.0 for way in made], "D", color=COLOURS[1], label="KL from the real ones")
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])  # room for the legend
    _add_legend(axes)


def _draw_runs(axes: Axes, record: Mapping[str, Any]) -> None:
    of_units = {
        unit: [item[f"longest_run_{unit}"] for item in record["items"] if f"longest_run_{unit}" in item]
        for unit in ("tokens", "notes")
    }
    longest = max(length for lengths in of_units.values() for length in lengths)
    width = math.ceil((longest + 1) / _RUN_BINS)
    edges = [number * width - 0.5 for number in range(_RUN_BINS + 1)]
    for (unit, lengths), colour in zip(of_units.items(), COLOURS):
        if lengths:
            axes.hist(lengths, bins=edges, color=colour, alpha=0.7, label=unit)
    axes.set_xlabel("length", fontsize=8)
    axes.set_ylabel("pieces", fontsize=8)
    _add_legend(axes)


def _draw_bars(axes: Axes, names: Sequence[str], values: Sequence[float], label: str = "") -> None:
    axes.bar(range(len(names)), values, color=COLOURS[0], label=label or None)
    is_aslant = len(names) > _PARTS_UPRIGHT
    axes.set_xticks(range(len(names)), names, rotation=45 if is_aslant else 0, ha="right" if is_aslant else "center")


def _add_legend(axes: Axes) -> None:
    for text in axes.legend(frameon=False, fontsize=8).get_texts():
        text.set_parse_math(False)


def _name_of(temperature: float) -> str:
    return f"at {temperature:g}" if temperature else "greedy"
