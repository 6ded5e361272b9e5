"""What a check says of what it looked at: rules with bounds, and findings where something lies outside them.

The words that `symbolic.checks`, `audio.checks` and `validation` share. Knows nothing of music or files, and imports
no numpy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as a rule wants it.

    Attributes:
        rule: the rule's name, as in a rules file.
        severity: an error condemns what was checked; a warning is worth a look.
        message: one line for people.
        value: what was found.
        limit: what the rule allows; None where there is no number to name.
    """

    rule: str
    severity: Severity
    message: str
    value: Any = None
    limit: float | None = None


@dataclass(frozen=True)
class Limit:
    """Bounds of one number, both included; None is unbounded.

    Attributes:
        min: the least that passes.
        max: the most that passes.
        severity: what a value outside them is.
    """

    min: float | None = None
    max: float | None = None
    severity: Severity = "error"

    def __post_init__(self) -> None:
        low, high = -math.inf if self.min is None else self.min, math.inf if self.max is None else self.max
        if low > high:
            raise ValueError(f"min {low:g} is over max {high:g}")
        if math.isnan(low) or math.isnan(high) or low == math.inf or high == -math.inf:
            raise ValueError("no number lies within these bounds")

    def judge(self, rule: str, noun: str, value: float | None, unit: str = "") -> Iterator[Finding]:
        """The finding, if there is one, about a value; None is a value that could not be known, and passes."""
        if value is None:
            return
        if self.min is not None and self.min > -math.inf and not value >= self.min:
            yield self._finding(rule, noun, value, unit, "under", self.min)
        elif self.max is not None and self.max < math.inf and not value <= self.max:
            yield self._finding(rule, noun, value, unit, "over", self.max)

    def _finding(self, rule: str, noun: str, value: float, unit: str, side: str, limit: float) -> Finding:
        message = f"{noun} {_number(value)}{unit}"
        if limit:
            message += f", {side} {_number(limit)}{unit}"
        return Finding(rule, self.severity, message, value, limit)


class Measure(NamedTuple):
    """A rule that bounds a number.

    Attributes:
        rule: the rule's field, with its section.
        fact: the fact's field.
        noun: what to call it.
        unit: with a space before it, or empty.
    """

    rule: str
    fact: str
    noun: str
    unit: str = ""


def judge_measures(measures: Iterable[Measure], rules: object, facts: object, section: str = "") -> Iterator[Finding]:
    """The findings of rules that are `Limit`s, in the order of `measures`."""
    for measure in measures:
        limit: Limit = getattr(rules, measure.rule)
        yield from limit.judge(section + measure.rule, measure.noun, getattr(facts, measure.fact), measure.unit)


def _number(value: float) -> str:
    """A number as people write it: whole ones with thousands apart, others to four digits, never scientific."""
    if not math.isfinite(value) or float(value).is_integer():
        return f"{value:,.0f}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 9)}f}".rstrip("0").rstrip(".")
