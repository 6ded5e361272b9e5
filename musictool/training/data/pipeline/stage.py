"""A stage: its name, its settings, and the module that does its work.

A stage's module lies beside this one under the stage's name, and has two functions:

    tools(settings) -> dict     what else decides the result, such as a library's version; raises where one is missing
    make(item, step, settings, outlet) -> list[Item]

`make` gets an item and writes the sounds of what it makes of it through the outlet. What comes out hangs on the item,
the settings and the tools alone: so a stage that was cut off can go on, and one that is told something else is noticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson

from musictool.training.data.pipeline.items import Item
from musictool.training.data.pipeline.outlet import Outlet
from musictool.training.data.pipeline.settings import APART, SETTINGS

_IN_ONE_PROCESS = ("separate", "encode")  # since each process would load the model anew


@dataclass(frozen=True)
class Stage:
    """A stage that is told what to do.

    Attributes:
        name: one of `SETTINGS`.
        settings: of that stage's class.
        step: name, settings and tools as JSON values, for whoever asks how something was made.
    """

    name: str
    settings: Any
    step: Mapping[str, Any]

    @classmethod
    def of(cls, settings: Any) -> Stage:
        """The stage that such settings are for.

        Raises:
            MissingError: something that it needs is not installed.
        """
        name = next(name for name, kind in SETTINGS.items() if type(settings) is kind)
        told = {f.name: _plain(getattr(settings, f.name)) for f in fields(settings) if dict(f.metadata) != APART}
        return cls(name, settings, {"stage": name, **told, **_module(name).tools(settings)})

    @property
    def is_in_one_process(self) -> bool:
        """Whether several processes are of no use to it."""
        return self.name in _IN_ONE_PROCESS

    def key(self, item: Item) -> str:
        """A digest of all that decides what becomes of an item."""
        told = orjson.dumps([item.key, self.step], option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(told).hexdigest()

    def make(self, item: Item, outlet: Outlet) -> Sequence[Item]:
        """Do the work on an item.

        Raises:
            InputError: the item cannot be read, or is none for this stage.
        """
        made: Sequence[Item] = _module(self.name).make(item, self.step, self.settings, outlet)
        return made


def _module(name: str) -> ModuleType:
    return import_module(f"musictool.training.data.pipeline.{name}")


def _plain(value: Any) -> Any:
    """A setting as a JSON value."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
