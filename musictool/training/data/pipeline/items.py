"""Items: what stages take and give, and how they are written down.

An item is a sound, or several that go together (`lead` and `backing`), each perhaps with its notes, and where it comes
from. A manifest has one a line, as JSON, with paths relative to its folder. In a pipe the same lines have paths
relative to where the commands run, and end with `{"end": 1}`, so that a list that breaks off is not taken for a short
one.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from musictool.checkpoints.files import sha256_of
from musictool.errors import InputError, MusicToolError
from musictool.training.data.pipeline.settings import WHOLE

MANIFEST_NAME = "manifest.jsonl"
LIST_SUFFIX = ".jsonl"
END_LINE = b'{"end":1}\n'

_DECIMALS = 6  # of seconds
_MANIFEST = re.compile(r"manifest(\..+)?\.jsonl")
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SHA = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Part:
    """A sound of an item.

    Attributes:
        file: that it is in; behind `encode`, a stream of its codes.
        sha256: its digest.
        notes: a MIDI file of what is played in it, if that is known.
        notes_sha256: its digest.
    """

    file: Path
    sha256: str
    notes: Path | None = None
    notes_sha256: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.file,) if self.notes is None else (self.file, self.notes)


@dataclass(frozen=True)
class Item:
    """A sound, or several that go together.

    Attributes:
        name: no other item's; folders are parted by `/`.
        parts: by their names.
        piece: what it was made of in the first place: items of one piece stay on one side of a split.
        source_sha256: digest of the file that it was made of; empty before it has been read.
        seconds: how long it is; 0 where nobody has looked.
        start_seconds: where in the source its sound begins.
        span: first and last second of the sound that are meant; None for all of it.
        about: what else is known of it, such as the performer.
        made: how it was made, a stage at a time.
    """

    name: str
    parts: Mapping[str, Part]
    piece: str = ""
    source_sha256: str = ""
    seconds: float = 0.0
    start_seconds: float = 0.0
    span: tuple[float, float] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    made: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for name in ("seconds", "start_seconds"):  # as exact as they are written
            object.__setattr__(self, name, round(getattr(self, name), _DECIMALS))
        if self.span is not None:
            object.__setattr__(self, "span", (round(self.span[0], _DECIMALS), round(self.span[1], _DECIMALS)))

    @property
    def files(self) -> list[Path]:
        """All files of all parts."""
        return [path for part in self.parts.values() for path in part.files]

    @property
    def key(self) -> str:
        """A digest of all that the item is, but for where its files lie."""
        facts = {**self.record(None), "parts": {n: [p.sha256, p.notes_sha256] for n, p in self.parts.items()}}
        return hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def record(self, folder: Path | None) -> dict[str, Any]:
        """The item as JSON values.

        Args:
            folder: what paths are written relative to; None leaves them as they are.
        """
        record: dict[str, Any] = {
            "name": self.name,
            "piece": self.piece,
            "source_sha256": self.source_sha256,
            "parts": {name: _part_record(part, folder) for name, part in self.parts.items()},
            "seconds": self.seconds,
            "start_seconds": self.start_seconds,
        }
        if self.span is not None:
            record["span"] = list(self.span)
        return record | {"about": dict(self.about), "made": [dict(step) for step in self.made]}

    def line(self, folder: Path | None) -> bytes:
        """The item as a line of a manifest in a folder."""
        return orjson.dumps(self.record(folder)) + b"\n"

    def after(self, step: Mapping[str, Any], **changes: Any) -> Item:
        """The item as a stage leaves it: with that stage among what made it, and what changed."""
        return replace(self, made=(*self.made, step), **changes)


def item_of_file(path: Path, name: str) -> Item:
    """A sound file as it came.

    Raises:
        InputError: it cannot be read.
    """
    sha = digest_of(path)
    return Item(name, {WHOLE: Part(path, sha)}, name, sha)


def digest_of(path: Path) -> str:
    """A file's sha256.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise InputError(reason[:1].lower() + reason[1:], context=str(path), code="unreadable-file") from error


def manifests_of(folder: Path) -> list[Path]:
    """The manifests of a folder, of all shares of the work.

    Raises:
        InputError: a stage is still at work there, or was cut off.
    """
    found = sorted(path for path in folder.iterdir() if _MANIFEST.fullmatch(path.name))
    if not found and any(path.name.startswith(".journal") for path in folder.iterdir()):
        hint = "run it again with --skip-existing: it goes on where it was"
        raise InputError("the stage that fills the folder has not come to its end", context=str(folder), hint=hint)
    return found


def read_manifest(path: Path) -> list[Item]:
    """The items of a manifest, or of any list of such lines.

    Raises:
        InputError: it cannot be read, or a line is no item.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise InputError(reason[:1].lower() + reason[1:], context=str(path)) from error
    places = (f"{path}, line {number}" for number in range(1, len(lines) + 1))
    records = ((_parsed(line, place), place) for line, place in zip(lines, places, strict=True) if line.strip())
    return [parse_item(record, path.parent, place) for record, place in records if not _is_end(record)]


def read_lines(lines: Iterable[bytes], label: str) -> Iterator[Item]:
    """The items of a pipe, as they come.

    Args:
        lines: as `read_manifest` reads, but with paths as they are and the closing line behind the last.
        label: what to call the pipe in errors.

    Raises:
        InputError: a line is no item, or the closing line is missing.
    """
    is_closed = False
    for number, line in enumerate(lines, 1):
        if line.strip():
            record = _parsed(line, f"{label}, line {number}")
            is_closed = _is_end(record)
            if not is_closed:
                yield parse_item(record, Path(), f"{label}, line {number}")
    if not is_closed:
        hint = 'whatever writes it came to no good end; a filter has to let the last line through: {"end": 1}'
        raise InputError("the list of items breaks off", context=label, hint=hint, code="truncated")


def parse_item(record: Any, folder: Path, place: str) -> Item:
    """An item of JSON values.

    Args:
        record: as from `Item.record`.
        folder: what its paths are relative to.
        place: what to call it in errors.

    Raises:
        InputError: it is none.
    """
    try:
        parts = {str(name): _parse_part(part, folder) for name, part in record["parts"].items()}
        span = record.get("span")
        item = Item(
            record["name"],
            parts,
            str(record.get("piece", "")),
            str(record.get("source_sha256", "")),
            float(record.get("seconds", 0)),
            float(record.get("start_seconds", 0)),
            None if span is None else (float(span[0]), float(span[1])),
            dict(record.get("about", {})),
            tuple(dict(step) for step in record.get("made", ())),
        )
        for name in (item.name, *parts):
            check_name(name)
    except MusicToolError as error:
        error.context = error.context or place
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        hint = "manifests are written by the stages of mtk data"
        raise InputError("the line is no item of sound", context=place, hint=hint) from error
    return item


def check_name(name: str) -> None:
    """Refuse a name that is none for a file below a folder: it may come from anywhere.

    Raises:
        InputError: it is empty, leads elsewhere, or holds what no file's name should.
    """
    if _UNSAFE.search(name) or not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise InputError(f"the item's name is no name for a file: {name!r:.80}", code="unsafe-name")


def _part_record(part: Part, folder: Path | None) -> dict[str, str]:
    record = {"file": _written(part.file, folder), "sha256": part.sha256}
    if part.notes is not None:
        record |= {"notes": _written(part.notes, folder), "notes_sha256": part.notes_sha256}
    return record


def _written(path: Path, folder: Path | None) -> str:
    return path.as_posix() if folder is None else Path(os.path.relpath(path, folder)).as_posix()


def _parse_part(record: Mapping[str, str], folder: Path) -> Part:
    """A part of JSON values; one without a digest is read for it."""
    file = _joined(folder, record["file"])
    notes = _joined(folder, record["notes"]) if "notes" in record else None
    sha, notes_sha = record.get("sha256", ""), record.get("notes_sha256", "")
    if not _SHA.fullmatch(sha):
        sha = digest_of(file)
    if notes is not None and not _SHA.fullmatch(notes_sha):
        notes_sha = digest_of(notes)
    return Part(file, sha, notes, notes_sha)


def _joined(folder: Path, path: str) -> Path:
    return Path(os.path.normpath(folder / path))


def _parsed(line: bytes, place: str) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError("the line is no JSON", context=place, hint="it may be cut off") from error


def _is_end(record: Any) -> bool:
    return isinstance(record, dict) and "end" in record and "name" not in record
