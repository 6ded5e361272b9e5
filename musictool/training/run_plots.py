"""Pictures of training runs: a panel a figure, a colour a run, a smoothed line over the faint raw one.

`draw_runs` fills any figure of matplotlib, and so knows neither files nor windows; `save_plot` writes a file, and
`PlotWindow` is a window on the screen. The same runs give the same bytes. Needs matplotlib, the extra `plot`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, BinaryIO

from musictool.errors import ResourceError
from musictool.metrics.pictures import COLOURS, load_matplotlib, plain_matplotlib, save_figure
from musictool.training.monitoring import Curve, Run, curve_of
from musictool.training.runs import EVALUATION_PREFIX

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASIC_METRICS = ("loss", "learning_rate", "gradient_norm")

_EVALUATIONS_SHOWN = 3
_REACH = 0.01  # on either side of a point of a smoothed line, as a share of all
_REACH_MIN = 3
_MARKERS_MAX = 40
_WITHOUT_NOISE = ("learning_rate", EVALUATION_PREFIX)
_LOG_RATIO = 20.0  # figures that differ by more are drawn on a logarithmic scale, if they are of these
_MAYBE_LOGARITHMIC = ("loss", "gradient_norm", f"{EVALUATION_PREFIX}loss")
_PANEL = 5.0, 2.8  # inches
_WINDOW = 12.0, 7.0
_DOTS_PER_INCH = 130


def plotted_metrics(runs: Sequence[Run]) -> list[str]:
    """What is drawn unless something is asked for: loss, learning rate, gradient norm, and a few of the evaluations."""
    there = list(dict.fromkeys(name for run in runs for name in run.metrics))
    best = [EVALUATION_PREFIX + str(run.setting("run", "best", "loss")) for run in runs]
    evaluations = dict.fromkeys([*best, *(name for name in there if name.startswith(EVALUATION_PREFIX))])
    shown = [name for name in evaluations if name in there][:_EVALUATIONS_SHOWN]
    return [*(name for name in BASIC_METRICS if name in there), *shown]


def draw_runs(figure: Figure, runs: Sequence[Run], names: Sequence[str], metrics: Sequence[str]) -> None:
    """Fill a figure.

    Args:
        figure: cleared first.
        runs: what to draw.
        names: what to call each of them.
        metrics: a panel for each.
    """
    figure.clear()
    columns = math.ceil(math.sqrt(len(metrics)))
    rows = math.ceil(len(metrics) / columns)
    for number, metric in enumerate(metrics, start=1):
        axes = figure.add_subplot(rows, columns, number)
        curves = [curve_of(run, metric) for run in runs]
        for curve, name, colour in zip(curves, names, cycle(COLOURS)):
            _draw_curve(axes, curve, name, colour, has_noise=not metric.startswith(_WITHOUT_NOISE))
        _finish(axes, metric, is_logarithmic=_has_wide_range(curves) and metric.startswith(_MAYBE_LOGARITHMIC))
        if number == 1:
            for text in axes.legend(frameon=False, fontsize=8).get_texts():
                text.set_parse_math(False)


def save_plot(
    file: BinaryIO, runs: Sequence[Run], names: Sequence[str], metrics: Sequence[str], format: str = "png"
) -> None:
    """Write a picture.

    Args:
        file: a binary file to write it to.
        runs, names, metrics: as `draw_runs` takes them.
        format: `png`, `pdf` or `svg`.

    Raises:
        MissingError: matplotlib is not installed.
    """
    columns = math.ceil(math.sqrt(len(metrics)))
    size = _PANEL[0] * columns, _PANEL[1] * math.ceil(len(metrics) / columns)
    with plain_matplotlib() as matplotlib:
        figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
        draw_runs(figure, runs, names, metrics)
        save_figure(figure, file, format, _DOTS_PER_INCH)


class PlotWindow:
    """A window that shows runs and follows them.

    Raises:
        MissingError: matplotlib is not installed.
        ResourceError: there is no display, or matplotlib finds nothing to open a window with.
    """

    def __init__(self) -> None:
        load_matplotlib()
        from matplotlib import pyplot

        self._pyplot = pyplot
        hint = "draw a file with --plot, or follow the run in the terminal with --watch"
        try:
            self._figure = pyplot.figure("mtk monitor", figsize=_WINDOW, layout="constrained")
        except ImportError as error:
            reason = str(error).splitlines()[0] if str(error) else "no backend"
            raise ResourceError(
                "no window can be opened", context=reason[:120], hint=hint, code="no-display"
            ) from error
        if self._figure.canvas.required_interactive_framework is None:
            pyplot.close(self._figure)
            raise ResourceError("there is no display for a window", hint=hint, code="no-display")
        self._figure.show()

    @property
    def is_open(self) -> bool:
        """Whether nobody has closed it."""
        return self._pyplot.fignum_exists(self._figure.number)

    def show(self, runs: Sequence[Run], names: Sequence[str], metrics: Sequence[str]) -> None:
        """Draw runs as they are now."""
        draw_runs(self._figure, runs, names, metrics)
        self._figure.canvas.draw_idle()

    def wait(self, seconds: float) -> None:
        """Let the window live for so long."""
        self._figure.canvas.start_event_loop(seconds)


def _draw_curve(axes: Axes, curve: Curve, name: str, colour: str, *, has_noise: bool) -> None:
    reach = max(round(len(curve.steps) * _REACH), _REACH_MIN)
    if not has_noise or len(curve.steps) <= 2 * reach:
        marker = "." if len(curve.steps) <= _MARKERS_MAX else ""
        axes.plot(curve.steps, curve.values, color=colour, label=name, linewidth=1.4, marker=marker, markersize=5)
        return
    axes.plot(curve.steps, curve.values, color=colour, linewidth=0.7, alpha=0.3)
    axes.plot(curve.steps, curve.smoothed(reach), color=colour, label=name, linewidth=1.4)


def _has_wide_range(curves: Sequence[Curve]) -> bool:
    values = [value for curve in curves for value in curve.values if math.isfinite(value)]
    return bool(values) and max(values) > _LOG_RATIO * min(values) > 0


def _finish(axes: Axes, metric: str, *, is_logarithmic: bool) -> None:
    """Title, scale and grid of a panel."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(metric, fontsize=10, loc="left", parse_math=False)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)
    if is_logarithmic:
        axes.set_yscale("log")
