"""Curricula: values of a recipe that change with the step. Pure functions of the step.

[[curriculum]]
value = "data.excerpt_seconds"
kind = "linear"                       # or "step": each value holds until the next point
points = [[0, 2.0], [2000, 8.0]]
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

SECTIONS = ("data", "loss", "optimiser")
"""What may change while a run goes on."""


@dataclass(frozen=True)
class Curve:
    """How one value goes.

    Attributes:
        value: its dotted name, from the section on.
        points: steps, ascending, each with the value from there on.
        kind: whether values between two points hold or lie on a line.
    """

    value: str
    points: tuple[tuple[int, Any], ...]
    kind: Literal["step", "linear"] = "step"

    def __post_init__(self) -> None:
        if not self.points:
            raise ValueError(f"the curriculum of {self.value} has no points")
        if any(later <= earlier for (earlier, _), (later, _) in pairwise(self.points)):
            raise ValueError(f"the steps of the curriculum of {self.value} do not ascend")
        if self.kind == "linear" and not _lie_on_lines([value for _, value in self.points]):
            raise ValueError(f"there is no line between the values of the curriculum of {self.value}")

    @property
    def section(self) -> str:
        return self.value.partition(".")[0]

    def at(self, step: int) -> Any:
        """The value at a step; before the first point it is that of the first point."""
        after = bisect_right(self.points, step, key=lambda point: point[0])
        start, value = self.points[max(0, after - 1)]
        if self.kind == "step" or after in (0, len(self.points)):
            return value
        end, goal = self.points[after]
        return _between(value, goal, (step - start) / (end - start))


def section_at(section: Any, name: str, curves: Sequence[Curve], step: int) -> Any:
    """A section of a recipe as it is at a step.

    Args:
        section: a frozen dataclass, and what it is without a curriculum.
        name: what the recipe calls it.
        curves: of all sections, with values of the types that sections have.
        step: from 0.

    Returns:
        A section of the same class, or the same one where no curve is of it.
    """
    for curve in curves:
        if curve.section == name:
            section = _with_value(section, curve.value.split(".")[1:], curve.at(step))
    return section


def _with_value(section: Any, path: Sequence[str], value: Any) -> Any:
    if len(path) > 1:
        value = _with_value(getattr(section, path[0]), path[1:], value)
    return replace(section, **{path[0]: value})


def _lie_on_lines(values: Sequence[Any]) -> bool:
    """Whether there is something between values: they are numbers, or lists of numbers of one length."""
    if all(isinstance(value, list | tuple) for value in values):
        return len({len(value) for value in values}) == 1 and all(map(_lie_on_lines, zip(*values)))
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _between(value: Any, goal: Any, share: float) -> Any:
    """What lies on the line from one value to another; between whole numbers it is one."""
    if isinstance(value, tuple):
        return tuple(_between(a, b, share) for a, b in zip(value, goal, strict=True))
    between = value + (goal - value) * share
    return round(between) if isinstance(value, int) else between
