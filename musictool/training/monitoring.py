"""How a training run stands, and how several compare: facts out of run folders. Imports no torch and draws nothing.

A run may be written while it is read, may not have begun, or may have died: nothing is known of it but its files. It is
taken to be alive as long as lines come about as often as they did; else it is called silent.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from musictool.config import load_toml
from musictool.errors import InputError
from musictool.training.runs import EVALUATION_PREFIX, METRICS_NAME, Record, RunFolder, read_metrics

State = Literal["no step yet", "running", "silent", "ended"]

PATIENCE_SECONDS = 60.0
PATIENCE_FACTOR = 2.0  # times the longest gap between lines

_RECENT_LINES = 20
_TREND_LINES = 10
_FACTS = ("step", "seconds")


@dataclass(frozen=True)
class Run:
    """What a run's files say.

    Attributes:
        name: as it was asked for.
        folder: where it lies.
        recipe: resolved, as a table; empty where there is none.
        records: lines of its metrics file.
        silence_seconds: since the last line.
    """

    name: str
    folder: RunFolder
    recipe: Mapping[str, Any] = field(default_factory=dict)
    records: Sequence[Record] = ()
    silence_seconds: float = 0.0

    @property
    def training(self) -> list[Record]:
        """The lines with a step and a loss."""
        return [record for record in self.records if "step" in record and "loss" in record]

    @property
    def metrics(self) -> list[str]:
        """The names of all figures, in the order in which they came."""
        names = dict.fromkeys(name for record in self.records if "step" in record for name in record)
        return [name for name in names if name not in (*_FACTS, "ended", "reason")]

    def setting(self, section: str, key: str, default: Any = None) -> Any:
        """A value of the recipe."""
        table = self.recipe.get(section)
        return table.get(key, default) if isinstance(table, Mapping) else default


@dataclass(frozen=True)
class Figure:
    """A figure and the step it was taken at; the value is None where it was no number."""

    name: str
    value: float | None
    step: int


@dataclass(frozen=True)
class Standing:
    """The newest figures of a run.

    Attributes:
        name: of the run.
        state: `running` and `silent` are judged by the time since the last line.
        reason: why it ended.
        silence_seconds: since the last line.
        step: steps done, as far as there are lines.
        steps: that it is to take, if there is a recipe.
        seconds: of training so far.
        seconds_left: at the rate of the last lines, evaluations and saves included.
        steps_per_second: that rate.
        loss: mean of the last line's steps; None where it is no number.
        loss_change: of the mean of the last lines, relative to those before them.
        loss_change_steps: how far apart these are.
        best: the best evaluation, by the figure that the recipe names.
        last_evaluation: the newest one.
        data_wait_share: of the last lines.
        checkpoint_step: of the newest checkpoint.
        checkpoint_age_seconds: since it was made.
        figures: the newest value of every figure.
    """

    name: str
    state: State
    reason: str = ""
    silence_seconds: float = 0.0
    step: int = 0
    steps: int | None = None
    seconds: float | None = None
    seconds_left: float | None = None
    steps_per_second: float | None = None
    loss: float | None = None
    loss_change: float | None = None
    loss_change_steps: int = 0
    best: Figure | None = None
    last_evaluation: Figure | None = None
    data_wait_share: float | None = None
    checkpoint_step: int | None = None
    checkpoint_age_seconds: float | None = None
    figures: Mapping[str, float | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


# ------------------------------------------------------------------------------------------------------------ reading


def read_run(path: Path) -> Run:
    """Read a run as it is now.

    Args:
        path: its folder or its metrics file; of a metrics file elsewhere there is no recipe and no checkpoint.

    Raises:
        InputError: there is no run, or a file of it makes no sense.
        OSError: it cannot be read.
    """
    name = str(path)
    if path.name == METRICS_NAME:
        path = path.parent
    if not path.exists():
        raise InputError("no such run", context=name, hint="name the folder that mtk train wrote to with -o")
    if not path.is_dir():
        return Run(name, RunFolder(path), {}, read_metrics(path), _age(path))
    folder = RunFolder(path)
    has_recipe, has_metrics = folder.recipe.exists(), folder.metrics.exists()
    if not (has_recipe or has_metrics):
        hint = f"a run's folder has a {METRICS_NAME}: mtk train -o RUN/ makes one"
        raise InputError("no training run is in the folder", context=name, hint=hint)
    recipe = load_toml(folder.recipe) if has_recipe else {}
    records = read_metrics(folder.metrics) if has_metrics else []
    return Run(name, folder, recipe, records, _age(folder.metrics if has_metrics else folder.recipe))


def _age(path: Path) -> float:
    return max(0.0, time.time() - path.stat().st_mtime)


# ----------------------------------------------------------------------------------------------------------- standing


def standing_of(run: Run) -> Standing:
    """Judge how a run stands."""
    steps = run.setting("run", "steps")
    checkpoint, checkpoint_age = _newest_checkpoint(run.folder)
    figures = {name: record[name] for record in run.records for name in run.metrics if name in record}
    done = [record["step"] for record in run.records if "step" in record]
    step = done[-1] if done else 0
    recent = run.training[-_RECENT_LINES:]
    rate = _rate(recent)
    change, change_steps = _loss_change(run.training)
    best, last = _evaluations(run)
    waits = [record["data_wait_share"] for record in recent if record.get("data_wait_share") is not None]
    return Standing(
        name=run.name,
        state=_state(run),
        reason=str(run.records[-1].get("reason", "")) if run.records else "",
        silence_seconds=run.silence_seconds,
        step=step,
        steps=steps,
        seconds=next((record["seconds"] for record in reversed(run.records) if "seconds" in record), None),
        seconds_left=max(0.0, (steps - step) / rate) if steps and rate else None,
        steps_per_second=rate,
        loss=figures.get("loss"),
        loss_change=change,
        loss_change_steps=change_steps,
        best=best,
        last_evaluation=last,
        data_wait_share=fmean(waits) if waits else None,
        checkpoint_step=checkpoint,
        checkpoint_age_seconds=checkpoint_age,
        figures=figures,
    )


def _state(run: Run) -> State:
    if run.records and "ended" in run.records[-1]:
        return "ended"
    times = [record["seconds"] for record in run.records if "seconds" in record]
    if not times:
        return "no step yet"
    gaps = [later - earlier for earlier, later in pairwise(times)] or times
    return "silent" if run.silence_seconds > max(PATIENCE_SECONDS, PATIENCE_FACTOR * max(gaps)) else "running"


def _rate(lines: Sequence[Record]) -> float | None:
    """Steps a second over some lines, by the clock; by the steps' own speed where there is one line only."""
    if not lines:
        return None
    first, last = lines[0], lines[-1]
    steps, seconds = last["step"] - first["step"], last.get("seconds", 0) - first.get("seconds", 0)
    rate = steps / seconds if steps > 0 and seconds > 0 else last.get("steps_per_second")
    return float(rate) if rate else None


def _loss_change(lines: Sequence[Record]) -> tuple[float | None, int]:
    """How the mean loss of the last lines differs from that of as many before them, and over how many steps."""
    lines = [record for record in lines if record["loss"] is not None]
    count = min(_TREND_LINES, len(lines) // 2)
    if not count:
        return None, 0
    before, after = (fmean(r["loss"] for r in part) for part in (lines[-2 * count : -count], lines[-count:]))
    return (after - before) / abs(before) if before else None, lines[-1]["step"] - lines[-1 - count]["step"]


def _evaluations(run: Run) -> tuple[Figure | None, Figure | None]:
    """The best and the newest evaluation, by the figure that the recipe goes by, or by the first there is."""
    names = [name for name in run.metrics if name.startswith(EVALUATION_PREFIX)]
    wanted = EVALUATION_PREFIX + str(run.setting("run", "best", "loss"))
    name = wanted if wanted in names else next(iter(names), "")
    found = [Figure(name, record[name], record["step"]) for record in run.records if name and name in record]
    is_max = run.setting("run", "best_is", "min") == "max"
    best: Figure | None = None
    for figure in found:
        if figure.value is None:
            continue
        if best is None or best.value is None or (figure.value > best.value if is_max else figure.value < best.value):
            best = figure
    return best, found[-1] if found else None


def _newest_checkpoint(folder: RunFolder) -> tuple[int | None, float | None]:
    for step in reversed(folder.checkpoint_steps()):
        try:
            return step, _age(folder.checkpoint(step))
        except FileNotFoundError:  # it was removed meanwhile
            continue
    return None, None


# --------------------------------------------------------------------------------------------------------- comparison


def recipe_differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The values in which the recipes of runs differ, by dotted name; None where a recipe has no such value.

    Runs without a recipe differ from no other.
    """
    flat = [dict(_flat(run.recipe)) for run in runs]
    names = dict.fromkeys(name for table in flat for name in table)
    rows = {name: [table.get(name) for table in flat] for name in names}
    return {
        name: values
        for name, values in rows.items()
        if any(value != other for value, a in zip(values, flat) for other, b in zip(values, flat) if a and b)
    }


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# ------------------------------------------------------------------------------------------------------------- curves


@dataclass(frozen=True)
class Curve:
    """One figure of one run over its steps.

    Attributes:
        steps: at which it was taken.
        values: as many; NaN where it was no number.
    """

    steps: list[int]
    values: list[float]

    def smoothed(self, reach: int) -> list[float]:
        """The mean of each value and of as many as `reach` on either side of it; what is no number is left out."""
        known = [value == value for value in self.values]
        counts = list(accumulate(known, initial=0))
        totals = list(accumulate((v if is_known else 0.0 for v, is_known in zip(self.values, known)), initial=0.0))
        smooth = []
        for index in range(len(self.values)):
            start, stop = max(0, index - reach), min(len(self.values), index + reach + 1)
            count = counts[stop] - counts[start]
            smooth.append((totals[stop] - totals[start]) / count if count else float("nan"))
        return smooth


def curve_of(run: Run, metric: str) -> Curve:
    """The curve of a figure; empty if the run has none."""
    points = [(record["step"], record[metric]) for record in run.records if "step" in record and metric in record]
    return Curve([step for step, _ in points], [float("nan") if value is None else float(value) for _, value in points])


def sparkline(values: Iterable[float], width: int) -> str:
    """A curve in one line of text, `width` characters at most; each is the mean of some values, a space of none."""
    values = list(values)
    count = min(width, len(values))
    edges = [round(len(values) * part / count) for part in range(count + 1)] if count else [0]
    parts = [[v for v in values[a:b] if v == v] for a, b in pairwise(edges)]
    means = [fmean(part) if part else None for part in parts]
    known = [mean for mean in means if mean is not None]
    low, span = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)
    bars = "▁▂▃▄▅▆▇█"
    return "".join(
        " " if m is None else bars[int((m - low) / span * (len(bars) - 1) + 0.5) if span else 0] for m in means
    )
