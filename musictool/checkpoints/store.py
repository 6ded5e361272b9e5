"""Where models are: found by path, in read-only folders, in the store, or in the package, in that order.

A model is a folder in our own format, and its name is the folder's. Knows no model and imports no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from musictool.checkpoints.adapters import is_adapter, read_adapter
from musictool.checkpoints.native import FACTS_NAME, WEIGHTS_NAME, is_native
from musictool.checkpoints.published import PUBLISHED
from musictool.errors import InputError, MissingError, UsageError

Place = Literal["path", "model path", "store", "package"]

HOME_VARIABLE = "MTK_HOME"
PATH_VARIABLE = "MTK_MODEL_PATH"
_PACKAGED = Path(__file__).parents[1] / "assets" / "models"
NAME_CHARACTERS_MAX = 64
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{NAME_CHARACTERS_MAX - 1}}}")


@dataclass(frozen=True)
class InstalledModel:
    """A model that is here.

    Attributes:
        name: its folder's.
        path: the folder.
        place: which of the places to look it is in.
        adapter: the folder of an adapter that is to be put on its weights.
    """

    name: str
    path: Path
    place: Place
    adapter: Path | None = None


@dataclass(frozen=True)
class Store:
    """The places to look for models.

    Attributes:
        home: the folder that models and downloads are written to.
        searched: read-only folders of models.
        packaged: the folder of those that ship.
        adapters: folders of adapters, each with the name or path by which the model that it is for is asked for.
    """

    home: Path
    searched: tuple[Path, ...] = ()
    packaged: Path = _PACKAGED
    adapters: tuple[tuple[str, Path], ...] = ()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Store:
        """The places that environment variables name: `MTK_HOME`, or the platform's folder for caches, and
        `MTK_MODEL_PATH`."""
        home = environ.get(HOME_VARIABLE)
        if not home:
            import platformdirs

            home = platformdirs.user_cache_dir("musictool", appauthor=False)
        searched = (Path(part) for part in environ.get(PATH_VARIABLE, "").split(os.pathsep) if part)
        return cls(Path(home).expanduser(), tuple(searched))

    def adapting(self, name: str, adapter: str | Path | None) -> Store:
        """The same places, with an adapter for the model that is asked for by a name or path; None for none."""
        return self if adapter is None else replace(self, adapters=(*self.adapters, (name, Path(adapter).expanduser())))

    @property
    def models(self) -> Path:
        """The folder that models are written to."""
        return self.home / "models"

    def folder_for(self, name: str) -> Path:
        """Where a model of that name is written.

        Raises:
            UsageError: it is no name.
        """
        return self.models / checked_name(name)

    def downloads_for(self, name: str) -> Path:
        """Where files of a published model are kept until it is imported."""
        return self.home / "downloads" / checked_name(name)

    def find(self, name: str) -> InstalledModel:
        """Find a model.

        Args:
            name: a model's name, or the path of a folder in our own format.

        Raises:
            InputError: it is a path, and there is no model.
            UsageError: it is no name, or an adapter's path.
            MissingError: there is no model of that name.
        """
        return replace(self._find(name), adapter=dict(self.adapters).get(name))

    def _find(self, name: str) -> InstalledModel:
        path = Path(name).expanduser()
        if is_path(name):
            if not os.path.lexists(path):
                raise InputError("no such file or folder", context=name, code="no-such-file")
            if is_adapter(path) and not (path / WEIGHTS_NAME).is_file():
                hint = f"name the model, too: --model {read_adapter(path).base or 'NAME'} --adapter {name}"
                raise UsageError("an adapter, and no model by itself", context=name, hint=hint, code="adapter")
            if not (path / FACTS_NAME).is_file():
                hint = f"make it one: mtk models import {name} --as NAME"
                raise InputError("no model in musictool's own format", context=name, hint=hint, code="no-model")
            return InstalledModel(path.resolve().name, path, "path")
        checked_name(name)
        if (model := self._here(name)) is not None:
            return model
        raise MissingError(f"no model named '{name}'", hint=how_to_get(name), code="missing-model")

    def installed(self) -> list[InstalledModel]:
        """All models by name, each where `find` finds it."""
        names: set[str] = set()
        for folder, _ in self._folders():
            if folder.is_dir():
                names.update(entry.name for entry in folder.iterdir() if _NAME.fullmatch(entry.name))
        return [model for name in sorted(names) if (model := self._here(name)) is not None]

    def _folders(self) -> Iterator[tuple[Path, Place]]:
        for folder in self.searched:
            yield folder, "model path"
        yield self.models, "store"
        yield self.packaged, "package"

    def _here(self, name: str) -> InstalledModel | None:
        """The first model of that name."""
        for folder, place in self._folders():
            if (folder / name / FACTS_NAME).is_file():
                return InstalledModel(name, folder / name, place)
        return None


def how_to_get(name: str) -> str:
    """The command that brings a model of that name."""
    return f"mtk models pull {name}" if name in PUBLISHED else f"mtk models import PATH --as {name}"


def is_path(text: str) -> bool:
    """Whether a text means a path and not a name: it has a separator or a dot, or is a model's folder right here."""
    if _NAME.fullmatch(text):
        return is_native(Path(text))
    return any(mark in text for mark in (os.sep, os.altsep or os.sep, ".")) or text.startswith("~")


def checked_name(name: str) -> str:
    """A model's name, if it is one.

    Raises:
        UsageError: it is none.
    """
    if not _NAME.fullmatch(name):
        hint = "a name has letters, digits, - and _, at most 64"
        raise UsageError(f"no name for a model: {name[:80]!r}", hint=hint, code="bad-name")
    return name
