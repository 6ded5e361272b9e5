"""The folder of a training run: what lies where in it, and its metrics file. Knows no model, and imports no numpy.

    RUN/recipe.toml               the recipe, resolved
    RUN/metrics.jsonl             figures, one flat JSON object a line
    RUN/checkpoints/000001200/    a model after 1200 steps, and beside it in training/ all that it takes to go on
    RUN/best/                     the model with the best evaluation

Lines of the metrics file are of four kinds:

    {"started": …, "mtk": …, "processes": …, "parameters": …}             a run starts or goes on
    {"step": 100, "seconds": 12.3, "loss": …, "learning_rate": …, …}      training
    {"step": 1000, "seconds": 123.0, "valid/onset_f1": …, …}              an evaluation
    {"ended": …, "step": 1000, "reason": …}                               it comes to an end, or is told to stop

A figure that is no number (a loss that diverged) is null. Steps never go down: what goes on from a checkpoint first
cuts off the lines after its step.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from musictool import __version__
from musictool.errors import InputError

RECIPE_NAME = "recipe.toml"
METRICS_NAME = "metrics.jsonl"
CHECKPOINTS_NAME = "checkpoints"
STATE_NAME = "training"
BEST_NAME = "best"
EVALUATION_PREFIX = "valid/"

_STEP_DIGITS = 9
_TAIL_BYTES = 4096

Record = dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """Paths in a run's folder. Makes nothing and reads only names.

    Args:
        path: the folder, which need not be there yet.
    """

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / RECIPE_NAME

    @property
    def metrics(self) -> Path:
        return self.path / METRICS_NAME

    @property
    def best(self) -> Path:
        return self.path / BEST_NAME

    def checkpoint(self, step: int) -> Path:
        """The folder of the checkpoint after `step` steps."""
        return self.path / CHECKPOINTS_NAME / f"{step:0{_STEP_DIGITS}}"

    def state(self, step: int) -> Path:
        """The folder of what it takes to go on from there, in the checkpoint's own."""
        return self.checkpoint(step) / STATE_NAME

    def checkpoint_steps(self) -> list[int]:
        """The steps after which there is a checkpoint, the oldest first; temporary folders are none."""
        try:
            names = os.listdir(self.path / CHECKPOINTS_NAME)
        except OSError:
            return []
        return sorted(int(name) for name in names if name.isdecimal() and len(name) >= _STEP_DIGITS)


class MetricsFile:
    """Appends lines to a metrics file, each whole before the next, so that `tail -f` and `mtk monitor` may read along.

    An unfinished line at the end, left by a process that was killed, is cut off on opening. One process writes at a
    time.

    Args:
        path: the file; it is made if it is not there.

    Raises:
        OSError: it cannot be opened; the error bears the file's name, as all that follow do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        os.ftruncate(self._descriptor, self._whole_bytes())

    def start(self, *, processes: int, parameters: int) -> None:
        """Say that a run starts or goes on, now.

        Args:
            processes: how many train together.
            parameters: how many numbers they train.
        """
        self.append({"started": _now(), "mtk": __version__, "processes": processes, "parameters": parameters})

    def end(self, step: int, reason: str) -> None:
        """Say that a run ends, now.

        Args:
            step: how many steps are done.
            reason: a word or two for people: `done`, `no gain`, `interrupted`.
        """
        self.append({"ended": _now(), "step": step, "reason": reason})

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a line, or nothing of it.

        Args:
            record: names and figures; a figure that is not finite is written as null.

        Raises:
            OSError: there is no space left; the file is as before.
        """
        line = orjson.dumps(dict(record), option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)
        before = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, line)
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError as error:
            os.ftruncate(self._descriptor, before)
            error.filename = str(self.path)
            raise

    def cut_after(self, step: int) -> None:
        """Forget what was written after a step, from its first line on; the lines of the step itself stay."""
        with open(self.path, "rb") as file:
            end = 0
            for line in file:
                record = _parsed(line)
                if record is not None and _step_of(record) > step:
                    break
                end += len(line)
        os.ftruncate(self._descriptor, end)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _whole_bytes(self) -> int:
        """How long the file is up to the end of its last whole line."""
        end = os.fstat(self._descriptor).st_size
        with open(self.path, "rb") as file:
            while end:
                start = max(0, end - _TAIL_BYTES)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    return start + newline + 1
                end = start
        return 0


def read_metrics(path: Path) -> list[Record]:
    """Read a metrics file, which another process may be writing: an unfinished last line is left out.

    Args:
        path: the file.

    Returns:
        Its lines, in their order.

    Raises:
        OSError: it cannot be read.
        InputError: a whole line is no JSON object.
    """
    records = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            if not line.strip():
                continue
            record = _parsed(line)
            if record is None:
                raise InputError("not a JSON object", context=f"{path}, line {number}", hint="remove the line")
            records.append(record)
    return records


def _parsed(line: bytes) -> Record | None:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _step_of(record: Record) -> float:
    step = record.get("step")
    return step if isinstance(step, int | float) else float("-inf")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
