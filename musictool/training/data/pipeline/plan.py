"""A pipeline: what a TOML file says of the stages, each with a section of its name.

    inputs = ["recordings/"]

    [ingest]
    keep = false

    [loudness]
    target_lufs = -14

    [split]
    seed = 67

Stages run in the order of `settings.SETTINGS`, whatever the order of the sections; a stage without a section is left
out. `keep = false` removes what a stage has written when the next stage that writes has used it up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from musictool.config import from_dict
from musictool.errors import UsageError
from musictool.training.data.pipeline.settings import SETTINGS

SOURCES = ("ingest", "pairs")
_INPUTS, _KEEP, _SPLIT = "inputs", "keep", "split"


@dataclass(frozen=True)
class SplitSettings:
    """How what came out is split.

    Attributes:
        fractions: the sides, and how much each is to get.
        seed: of the draw.
    """

    fractions: str = "train=.8,valid=.1,test=.1"
    seed: int = 67


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a pipeline.

    Attributes:
        name: of the stage.
        settings: what it is told.
        keeps: whether its output stays when it has been used.
    """

    name: str
    settings: Any
    keeps: bool


@dataclass(frozen=True)
class Pipeline:
    """What is done to what.

    Attributes:
        inputs: what the first stage is given.
        stages: in their order.
        split: the last step; None for none.
    """

    inputs: tuple[str, ...]
    stages: tuple[PlannedStage, ...]
    split: SplitSettings | None


def parse_pipeline(table: Mapping[str, Any], where: str) -> Pipeline:
    """Read a pipeline's TOML.

    Args:
        table: as parsed.
        where: what to call it in errors.

    Raises:
        UsageError: it makes no sense.
    """
    unknown = [name for name in table if name not in (*SETTINGS, _INPUTS, _SPLIT)]
    if unknown:
        hint = f"there are inputs, [{'], ['.join(SETTINGS)}] and [{_SPLIT}]"
        raise UsageError(f"unknown section {unknown[0]!r:.60}", context=where, hint=hint, code="bad-config")
    stages = [_planned(name, table[name], where) for name in SETTINGS if name in table]
    if not stages:
        raise UsageError("the pipeline has no stage", context=where, hint="begin with [ingest]", code="bad-config")
    if all(any(stage.name == source for stage in stages) for source in SOURCES):
        hint = "make pairs with a pipeline of their own, and name its last folder as an input"
        raise UsageError("[ingest] and [pairs] both bring something in", context=where, hint=hint, code="bad-config")
    if not stages[-1].keeps:
        message = f"[{stages[-1].name}] is the last stage, and is not kept"
        raise UsageError(message, context=where, hint="leave out keep = false", code="bad-config")
    split = None
    if _SPLIT in table:
        split = from_dict(SplitSettings, _section(table[_SPLIT], _SPLIT, where), f"{where}, [{_SPLIT}]")
    return Pipeline(_inputs(table.get(_INPUTS, []), where), tuple(stages), split)


def _planned(name: str, section: Any, where: str) -> PlannedStage:
    section = dict(_section(section, name, where))
    keeps = section.pop(_KEEP, True)
    if not isinstance(keeps, bool):
        raise UsageError(f"'{name}.{_KEEP}' is {keeps!r:.40}, not true or false", context=where, code="bad-config")
    return PlannedStage(name, from_dict(SETTINGS[name], section, f"{where}, [{name}]"), keeps)


def _section(section: Any, name: str, where: str) -> Mapping[str, Any]:
    if not isinstance(section, Mapping):
        raise UsageError(f"'{name}' is a value, not a section", context=where, code="bad-config")
    return section


def _inputs(value: Any, where: str) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not (isinstance(values, list) and all(isinstance(entry, str) for entry in values)):
        raise UsageError("'inputs' is no list of texts", context=where, code="bad-config")
    return tuple(values)
