"""`mtk monitor`: the folders of training runs -> how they stand, in a table, a plot or JSON."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musictool.cli.environment import UNPRINTABLE, Environment, environment_of
from musictool.cli.exit_status import ExitStatus
from musictool.cli.files import atomic_writer
from musictool.cli.options import ForceOption
from musictool.cli.streams import input_error_from
from musictool.errors import InputError, UsageError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from musictool.training.monitoring import Run, Standing

EXAMPLES = (
    "mtk monitor examples/runs/note-tagger",
    "mtk monitor examples/runs/note-tagger --plot note-tagger.png",
)
PIPE_WIDTH = 1000
SPARKLINE_WIDTH = 32
WINDOW_POLL_SECONDS = 0.1
_STYLES = {"running": "green", "ended": "bold", "silent": "bold red"}
_PER_SECOND = "_per_second"


def monitor(
    context: typer.Context,
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN…", show_default=False, help="Folders that mtk train wrote, or metrics files."),
    ],
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow the runs until they end.")] = False,
    live: Annotated[bool, typer.Option("--live", help="Follow them in a plot window until it is closed.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", show_default=False, help="Draw a picture: .png, .pdf or .svg."),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            show_default=False,
            help="What to show or draw, as in loss or 'valid/*'; may be repeated.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The newest figures, one JSON object a run.")] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.1, metavar="SECONDS", help="How often to look, with --watch and --live.")
    ] = 2.0,
    force: ForceOption = False,
) -> int:
    """Show how training runs stand.

    A run whose last line is older than twice the longest wait so far is called silent: it may have been killed. Of
    several runs, the values in which their recipes differ are shown too.

    Figures are lines of JSON that any tool can follow: tail -f RUN/metrics.jsonl | jq .loss
    """
    environment = environment_of(context)
    if [watch, live, plot is not None].count(True) > 1 or (as_json and (live or plot)):
        raise UsageError("--watch, --live and --plot exclude one another", hint="--json goes with --watch alone")
    if watch and not as_json and not environment.is_stdout_terminal:
        raise UsageError("--watch needs a terminal", hint="add --json, or: tail -f RUN/metrics.jsonl")
    view = _View(runs, metrics or (), environment)
    if plot is not None:
        _draw(view, plot, force=force)
    elif live:
        return _follow_in_window(view, every)
    elif as_json:
        _tell_in_json(view, every if watch else None, environment)
    else:
        _show(view, every if watch else None, environment)
    return ExitStatus.FINDINGS if view.has_failed else ExitStatus.DONE


class _View:
    """The runs that are looked at.

    Attributes:
        has_failed: whether one of several is no run.
    """

    def __init__(self, paths: Sequence[Path], patterns: Sequence[str], environment: Environment) -> None:
        self.has_failed = False
        self._patterns = patterns
        self._runs: dict[Path, Run] = {}
        for path in dict.fromkeys(paths):
            try:
                self._runs[path] = _read(path)
            except InputError as error:
                if len(paths) == 1:
                    raise
                self.has_failed = True
                environment.item_failed(str(path), error)
        if not self._runs:
            raise InputError("there is no run among them", hint="name folders that mtk train wrote to with -o")
        self._check_patterns()

    @property
    def runs(self) -> list[Run]:
        return list(self._runs.values())

    @property
    def names(self) -> list[str]:
        """What tells the runs apart: several are called by their paths below the folder that holds them all."""
        names = [os.path.normpath(run.name) for run in self.runs]
        if len(names) > 1:
            paths = [os.path.abspath(name) for name in names]
            above = os.path.commonpath([os.path.dirname(path) for path in paths])
            names = [os.path.relpath(path, above) for path in paths]
        return [_clean(name) for name in names]

    def standings(self) -> list[Standing]:
        from musictool.training.monitoring import standing_of

        return [standing_of(run) for run in self.runs]

    def looks(self, every: float | None) -> Iterator[list[Standing]]:
        """How the runs stand: now, and with `every` again each so many seconds until all have ended."""
        standings = self.standings()
        yield standings
        while every is not None and any(standing.state != "ended" for standing in standings):
            time.sleep(every)
            self.refresh()
            standings = self.standings()
            yield standings

    def refresh(self) -> None:
        """Read all runs again; one that cannot be read any more stays as it was."""
        for path in self._runs:
            try:
                self._runs[path] = _read(path)
            except InputError:
                continue

    def asked_metrics(self) -> list[str]:
        """The figures that are asked for by name."""
        return [name for name in self._all_metrics() if any(fnmatchcase(name, pattern) for pattern in self._patterns)]

    def plotted_metrics(self) -> list[str]:
        """The figures that are asked for, or else those that tell most."""
        from musictool.training.run_plots import plotted_metrics

        return self.asked_metrics() if self._patterns else plotted_metrics(self.runs)

    def _all_metrics(self) -> list[str]:
        return list(dict.fromkeys(name for run in self.runs for name in run.metrics))

    def _check_patterns(self) -> None:
        """Refuse a figure that no run has, unless there are no figures yet."""
        known = self._all_metrics()
        for pattern in self._patterns:
            if known and not any(fnmatchcase(name, pattern) for name in known):
                near = get_close_matches(pattern, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                raise UsageError(f"no such figure: {pattern[:40]}", context="--metric", hint=hint)


def _read(path: Path) -> Run:
    from musictool.training.monitoring import read_run

    try:
        return read_run(path)
    except OSError as error:
        raise input_error_from(error) from error


# --------------------------------------------------------------------------------------------------------------- ways


def _show(view: _View, every: float | None, environment: Environment) -> None:
    """Print a table, or keep one on the screen."""
    with _console(environment) as console:
        if every is None:
            with console.capture() as captured:
                console.print(_table(view, view.standings()))
            lines = [line.rstrip() for line in captured.get().splitlines()]
            environment.stdout.write("".join(f"{line}\n" for line in lines).encode())
            return
        from rich.live import Live

        with Live(console=console, auto_refresh=False) as screen:
            for standings in view.looks(every):
                screen.update(_table(view, standings), refresh=True)


def _tell_in_json(view: _View, every: float | None, environment: Environment) -> None:
    """Write a line for each run, and with `every` another whenever there is something new."""
    told: dict[str, tuple[Any, ...]] = {}
    for standings in view.looks(every):
        asked = view.asked_metrics()
        for standing in standings:
            news = standing.state, standing.step, *standing.figures.values()
            if told.get(standing.name) != news:
                told[standing.name] = news
                table = standing.to_json()
                if asked:
                    table["figures"] = {name: value for name, value in standing.figures.items() if name in asked}
                environment.stdout.write(json.dumps(table).encode() + b"\n")
        environment.stdout.flush()


def _draw(view: _View, path: Path, *, force: bool) -> None:
    """Draw a picture."""
    from musictool.metrics.pictures import PICTURE_FORMATS
    from musictool.training.run_plots import save_plot

    form = path.suffix.lower().lstrip(".")
    if form not in PICTURE_FORMATS:
        hint = f"name a file that ends in {', '.join(f'.{name}' for name in PICTURE_FORMATS)}"
        raise UsageError(f"no such kind of picture: {path.suffix[:20] or 'none'}", context=f"--plot {path}", hint=hint)
    metrics = view.plotted_metrics()
    if not metrics:
        hint = "the first come after as many steps as the recipe's run.log_every"
        raise InputError("there are no figures to draw yet", context=", ".join(view.names), hint=hint)
    with atomic_writer(path, force=force) as file:
        save_plot(file, view.runs, view.names, metrics, form)


def _follow_in_window(view: _View, every: float) -> int:
    """Draw in a window, again and again, until it is closed or a signal comes.

    Returns:
        The exit status. An exception in a window's callback would be lost, so a signal is waited for instead.
    """
    from musictool.training.interrupts import Interrupts
    from musictool.training.run_plots import PlotWindow

    interrupts = Interrupts()
    with interrupts.caught():
        window = PlotWindow()
        while window.is_open and not interrupts.number:
            window.show(view.runs, view.names, view.plotted_metrics())
            end = time.monotonic() + every
            while window.is_open and not interrupts.number and time.monotonic() < end:
                window.wait(min(every, WINDOW_POLL_SECONDS))
            view.refresh()
    return 128 + interrupts.number if interrupts.number else ExitStatus.DONE


# -------------------------------------------------------------------------------------------------------------- table


@contextmanager
def _console(environment: Environment) -> Iterator[Console]:
    """rich on the environment's standard output."""
    from rich.console import Console

    text = io.TextIOWrapper(environment.stdout, "utf-8", errors="replace", write_through=True)
    is_terminal = environment.is_stdout_terminal
    try:
        yield Console(file=text, force_terminal=is_terminal, width=None if is_terminal else PIPE_WIDTH, highlight=False)
    finally:
        text.detach()


def _table(view: _View, standings: Sequence[Standing]) -> RenderableType:
    """A column for each run; runs that have not begun are said to be so in a line each."""
    from rich.table import Table
    from rich.text import Text

    from musictool.training.monitoring import recipe_differences

    if all(standing.state == "no step yet" for standing in standings):
        return Text("\n".join(f"{name}: {_state(standing)}" for name, standing in zip(view.names, standings)))
    columns = [_cells(run, standing, view.asked_metrics()) for run, standing in zip(view.runs, standings)]
    labels = list(dict.fromkeys(label for cells in columns for label in cells))
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold")
    for name in ["", *view.names]:
        table.add_column(Text(name), overflow="fold")
    for label in labels:
        cells = [Text(_clean(cells.get(label, "-"))) for cells in columns]
        if label == "state":
            for cell, standing in zip(cells, standings):
                cell.stylize(_STYLES.get(standing.state, ""))
        table.add_row(Text(label), *cells)
    for name, values in recipe_differences(view.runs).items():
        texts = ("-" if value is None else json.dumps(value, ensure_ascii=False, default=str) for value in values)
        table.add_row(Text(_clean(name), style="italic"), *(Text(_clean(text)) for text in texts))
    return table


def _cells(run: Run, standing: Standing, asked: Sequence[str]) -> dict[str, str]:
    """What a column says, by the label of the row."""
    from musictool.training.monitoring import curve_of, sparkline

    cells = {"state": _state(standing), "step": _progress(standing), "time": _time(standing), "speed": _speed(standing)}
    if not asked:
        cells |= {"loss": _loss(standing), "": sparkline(curve_of(run, "loss").values, SPARKLINE_WIDTH)}
        cells |= _evaluation(standing)
    for name in asked:
        value = _number(standing.figures[name]) if name in standing.figures else "-"
        cells[name] = f"{value}  {sparkline(curve_of(run, name).values, SPARKLINE_WIDTH)}"
    if standing.data_wait_share is not None:
        cells["waits for data"] = f"{standing.data_wait_share:.1%} of the time"
    if standing.checkpoint_step is not None and standing.checkpoint_age_seconds is not None:
        age = _duration(standing.checkpoint_age_seconds)
        cells["checkpoint"] = f"step {standing.checkpoint_step:,}, {age} ago"
    return cells


def _state(standing: Standing) -> str:
    if standing.state == "ended":
        return f"ended: {standing.reason}" if standing.reason else "ended"
    silence = f"last line {_duration(standing.silence_seconds)} ago"
    return f"{standing.state}, {silence}" if standing.state != "no step yet" else standing.state


def _progress(standing: Standing) -> str:
    if not standing.steps:
        return f"{standing.step:,}"
    return f"{standing.step:,} of {standing.steps:,} ({standing.step / standing.steps:.0%})"


def _time(standing: Standing) -> str:
    parts = [] if standing.seconds is None else [f"{_duration(standing.seconds)} so far"]
    if standing.state != "ended" and standing.seconds_left is not None:
        parts.append(f"{_duration(standing.seconds_left)} left")
    return ", ".join(parts) or "-"


def _speed(standing: Standing) -> str:
    parts = [] if standing.steps_per_second is None else [f"{standing.steps_per_second:.3g} steps/s"]
    for name, value in standing.figures.items():
        if name.endswith(_PER_SECOND) and name != f"steps{_PER_SECOND}" and value is not None:
            parts.append(f"{value:.4g} {name.removesuffix(_PER_SECOND).replace('_', ' ')}/s")
    return ", ".join(parts) or "-"


def _loss(standing: Standing) -> str:
    if "loss" not in standing.figures:
        return "-"
    loss = _number(standing.loss)
    if standing.loss_change is None:
        return loss
    steps = standing.loss_change_steps
    return f"{loss}, {standing.loss_change:+.1%} in {steps:,} {'step' if steps == 1 else 'steps'}"


def _evaluation(standing: Standing) -> dict[str, str]:
    best, last = standing.best, standing.last_evaluation
    if last is None:
        return {}
    if best is None:
        return {f"best {last.name}": f"none, {_number(last.value)} at step {last.step:,}"}
    text = f"{_number(best.value)} at step {best.step:,}"
    return {f"best {best.name}": text if best == last else f"{text}, now {_number(last.value)}"}


def _number(value: float | None) -> str:
    return "no number" if value is None else f"{value:.4g}"


def _duration(seconds: float) -> str:
    """A duration in its two biggest units, at most."""
    whole = round(seconds)
    for size, unit, smaller, smaller_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {smaller_unit}"
    return f"{whole} s"


def _clean(text: str) -> str:
    return UNPRINTABLE.sub("_", text)
