"""Models that others have published: where, under which licence, and what is known of every file.

The facts are JSON files in `published/`, one a model. Knows no network.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from musictool.errors import UsageError

SHA256_DIGITS = 64
_FOLDER = Path(__file__).parent / "published"

PUBLISHED = tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


@dataclass(frozen=True)
class PublishedFile:
    """A file to fetch.

    Attributes:
        path: below the model's address and below the folder it is fetched to, with `/`.
        size: bytes; None where it is not known here.
        sha256: in hexadecimal; nothing, or its first digits alone, where no more is known here.
    """

    path: str
    size: int | None
    sha256: str

    @property
    def is_known(self) -> bool:
        """Whether what comes can be held against all that there is to know."""
        return self.size is not None and len(self.sha256) == SHA256_DIGITS


@dataclass(frozen=True)
class PublishedModel:
    """A model to fetch.

    Attributes:
        name: ours for it.
        preset: which preset it is the weights of.
        url: the folder that its files are in, with a slash at the end.
        licence: of the weights, by its SPDX name, or in words where they have none.
        about: who made it, and where to read of it.
        files: all that an import needs.
    """

    name: str
    preset: str
    url: str
    licence: str
    about: str
    files: tuple[PublishedFile, ...]

    @property
    def size(self) -> int | None:
        """Bytes of all files; None where that is not known here."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)


def find_published(name: str) -> PublishedModel:
    """A published model by name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in PUBLISHED:
        raise UsageError(f"no published model is known as {name[:40]!r}", hint=f"there are {', '.join(PUBLISHED)}")
    data = json.loads((_FOLDER / f"{name}.json").read_text())
    files = tuple(PublishedFile(*file) for file in data["files"])
    return PublishedModel(name, data["preset"], data["url"], data["licence"], data["about"], files)
