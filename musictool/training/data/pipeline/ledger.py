"""What a stage's folder holds and how it was made: what lets a stage that was cut off go on.

A folder has the items' files, `manifest.jsonl` with a line for each of them, and a journal. The journal says first what
the stage was told, then, for each item of its input, by a key what it was made of, and what came out. Files are made in
`.scratch` and take their places one item at a time, just before the journal's line: a line stands for whole files, and
files without one are made again. At the end manifest and journal are sorted by name, so that they are the same however
often the stage was cut off. A share of the work (`--shard`) has a manifest, a journal and a scratch folder of its own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from musictool.errors import InputError, UsageError
from musictool.training.data.pipeline.items import Item, Part, digest_of, parse_item
from musictool.training.data.pipeline.outlet import UNWRITABLE
from musictool.training.data.pipeline.stage import Stage

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None  # type: ignore[assignment]

_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """What became of an item of a stage's input.

    Attributes:
        key: digest of all that decided it.
        items: what came out, perhaps nothing.
    """

    key: str
    items: tuple[Item, ...]


class Ledger:
    """The record of a stage's folder.

    Args:
        folder: it need not be there.
        stage: that fills it.
        share: of the work, as in `3-of-16`; empty for all of it.
        replaces: make again what would come out otherwise now, or is damaged, rather than refuse it.

    Attributes:
        folder: that it is the record of.
        replaces: as above.
        is_begun: whether the stage has been at work here.

    Raises:
        UsageError: another stage fills the folder, or it holds what no stage made; or the stage was told otherwise, and
            `replaces` is false.
        InputError: the journal cannot be read.
    """

    def __init__(self, folder: Path, stage: Stage, share: str = "", *, replaces: bool = False) -> None:
        self.folder = folder = Path(os.path.normpath(folder))
        self.stage = stage
        self.manifest = folder / (f"manifest.{share}.jsonl" if share else "manifest.jsonl")
        self._journal = folder / (f".journal.{share}.jsonl" if share else ".journal.jsonl")
        self._scratch = folder / (f".scratch.{share}" if share else ".scratch")
        self.replaces = replaces
        self._file: BinaryIO | None = None  # the journal, while this ledger is at work
        self._entries: dict[str, Entry] = {}
        self._makers: dict[str, str] = {}  # the input's item by the name of what was made of it
        self.is_begun = self._journal.is_file()
        if self.is_begun:
            with _reported(folder):
                self._take(self._journal.read_bytes())
        else:
            self._refuse_strange_folder()

    # ------------------------------------------------------------------------------------------------------- looking

    def items(self, item: Item) -> tuple[Item, ...]:
        """What was made of an item of the input."""
        return self._entries[item.name].items

    def all_items(self) -> list[Item]:
        """All that was made, by name."""
        return sorted((item for entry in self._entries.values() for item in entry.items), key=lambda item: item.name)

    def is_done(self, item: Item, is_used_up: Callable[[Item], bool] | None = None) -> bool:
        """Whether what is to be made of an item is there.

        Args:
            item: of the input.
            is_used_up: whether nobody needs the files of something that was made any more.

        Raises:
            InputError: there is something else of that name, made of something else.
        """
        entry = self._entries.get(item.name)
        if entry is not None and entry.key != self.stage.key(item) and not self.replaces:
            raise InputError(
                "what is there under this name was made of something else",
                context=str(self.folder),
                hint="make it again with --force, or name another folder",
                code="exists",
            )
        return self.has(item, is_used_up)

    def has(self, item: Item, is_used_up: Callable[[Item], bool] | None = None) -> bool:
        """As `is_done`, but what was made of something else is not there."""
        entry = self._entries.get(item.name)
        if entry is None or entry.key != self.stage.key(item):
            return False
        return all(self._is_there(made) or (is_used_up is not None and is_used_up(made)) for made in entry.items)

    def _is_there(self, item: Item) -> bool:
        if not self.replaces:
            return all(path.is_file() for path in item.files)
        return all(
            path.is_file() and digest_of(path) == sha
            for part in item.parts.values()
            for path, sha in zip(part.files, (part.sha256, part.notes_sha256))
        )

    # ------------------------------------------------------------------------------------------------------- writing

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Keep other processes off, for a block in which items are added; what a run before left half done goes.

        Raises:
            InputError: another process is at work, or the folder cannot be written to.
        """
        with _reported(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = self._locked_journal()
            try:
                self._file.seek(0)
                self._take(self._file.read())  # another process may have been at work meanwhile
                shutil.rmtree(self._scratch, ignore_errors=True)
                self._scratch.mkdir()
                self._rewrite_journal()
            except BaseException:
                self._file.close()
                raise
        try:
            yield
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._file.close()
            self._file = None

    def scratch(self) -> Path:
        """A new folder for what is made of one item.

        Raises:
            InputError: there is no room for it.
        """
        with _reported(self.folder):
            return Path(tempfile.mkdtemp(dir=self._scratch))

    def add(self, item: Item, made: Sequence[Item], scratch: Path) -> tuple[Item, ...]:
        """Let what was made of an item take its place, and write that down.

        Args:
            item: of the input.
            made: its files lie in `scratch`, or in no need of a place.
            scratch: it is gone afterwards.

        Returns:
            What was made, with its files in their places.

        Raises:
            InputError: something else has one of the names, or the folder cannot be written to.
        """
        for name in (one.name for one in made):
            if self._makers.get(name, item.name) != item.name:
                raise InputError(f"something else has the name {name!r:.80}", code="duplicate-output")
        old = self._entries.get(item.name)
        with _reported(self.folder):
            placed = tuple(self._placed(one, scratch) for one in made)
            entry = Entry(self.stage.key(item), placed)
            _append(self._file, [self._journal_line(item.name, entry)])
            self._entries[item.name] = entry
            self._makers |= {one.name: item.name for one in placed}
            shutil.rmtree(scratch, ignore_errors=True)
            if old is not None:
                self._remove(_files(old.items) - _files(placed))
        return placed

    def forget_others(self, names: Iterable[str]) -> int:
        """Leave out what was made of other items than these, which are gone; how many there were.

        Their files go where `replaces` is true, and stay otherwise, as do their lines.
        """
        others = sorted(self._entries.keys() - set(names))
        if self.replaces:
            self._remove({path for name in others for path in _files(self._entries.pop(name).items)})
        return len(others)

    def discard(self, kept: Iterable[Path]) -> None:
        """Remove the files of all that was made, but for those of `kept`; what they were stays written down."""
        self._remove(_files(self.all_items()) - set(kept))

    def finish(self) -> None:
        """Write the manifest, and the journal anew."""
        with _reported(self.folder):
            temporary = self._scratch / self.manifest.name
            with open(temporary, "wb") as file:
                _append(file, [item.line(self.folder) for item in self.all_items()])
            os.replace(temporary, self.manifest)
            self._rewrite_journal()

    def _placed(self, item: Item, scratch: Path) -> Item:
        return replace(item, parts={name: self._placed_part(part, scratch) for name, part in item.parts.items()})

    def _placed_part(self, part: Part, scratch: Path) -> Part:
        if scratch not in part.file.parents:
            return part
        file, *notes = (self._moved(path, scratch) for path in part.files)
        return replace(part, file=file, notes=notes[0] if notes else None)

    def _moved(self, path: Path, scratch: Path) -> Path:
        target = self.folder / path.relative_to(scratch)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
        return target

    def _remove(self, files: Iterable[Path]) -> None:
        """Remove files, as far as they are this folder's."""
        for path in files:
            if self.folder in path.parents:
                path.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------------- journal

    def _journal_line(self, name: str, entry: Entry) -> bytes:
        items = [item.record(self.folder) for item in entry.items]
        return orjson.dumps({"input": name, "key": entry.key, "items": items}) + b"\n"

    def _locked_journal(self) -> BinaryIO:
        """The journal, kept from other processes; it is always the file that has its name that is locked."""
        while True:
            file = open(self._journal, "a+b")  # noqa: SIM115  (as long as this ledger is at work)
            _lock(file, self.folder)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(self._journal)):
                return file
            file.close()

    def _rewrite_journal(self) -> None:
        """Write the journal anew, sorted by name, whole or not at all."""
        assert self._file is not None
        temporary = self._scratch / self._journal.name
        head = orjson.dumps({"version": _VERSION, "told": dict(self.stage.step)}) + b"\n"
        lines = (self._journal_line(name, self._entries[name]) for name in sorted(self._entries))
        file = open(temporary, "a+b")  # noqa: SIM115  (as long as this ledger is at work)
        try:
            _lock(file, self.folder)
            _append(file, [head, *lines])
            os.replace(temporary, self._journal)
        except BaseException:
            file.close()
            raise
        self._file.close()
        self._file = file

    def _take(self, data: bytes) -> None:
        """Take over a journal's entries; a last line that breaks off is none."""
        self._entries, self._makers = {}, {}
        for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
            place = f"{self._journal}, line {number}"
            try:
                record = orjson.loads(line)
                if number == 1:
                    self._refuse_other(record["told"])
                else:
                    items = tuple(parse_item(made, self.folder, place) for made in record["items"])
                    self._entries[record["input"]] = Entry(record["key"], items)
            except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                hint = "remove the folder, and let the stage fill it again"
                raise InputError("the stage's journal is damaged", context=place, hint=hint) from error
        self._makers = {item.name: name for name, entry in self._entries.items() for item in entry.items}

    def _refuse_other(self, told: Mapping[str, Any]) -> None:
        now = self.stage.step
        if told.get("stage") != now["stage"]:
            message = f"the folder belongs to stage {str(told.get('stage'))[:40]}, not to {now['stage']}"
            raise UsageError(message, context=str(self.folder), hint="name another folder", code="exists")
        changed = [name for name in {**told, **now} if told.get(name) != now.get(name)]
        if changed and not self.replaces:
            name = changed[0]
            raise UsageError(
                f"the folder was filled with {name} {told.get(name)!r:.60}, not {now.get(name)!r:.60}",
                context=str(self.folder),
                hint="make it again with --force, or name another folder",
                code="exists",
            )

    def _refuse_strange_folder(self) -> None:
        if not self.folder.is_dir() or any(path.name.startswith(".journal.") for path in self.folder.iterdir()):
            return
        if any(not path.name.startswith(".") for path in self.folder.iterdir()):
            raise UsageError(
                "the folder holds what no stage has made",
                context=str(self.folder),
                hint="name a folder that is empty or not there yet",
                code="exists",
            )


def _files(items: Iterable[Item]) -> set[Path]:
    return {path for item in items for path in item.files}


def _append(file: BinaryIO | None, lines: Iterable[bytes]) -> None:
    """Write lines and wait until they are on the disk."""
    assert file is not None
    file.writelines(lines)
    file.flush()
    os.fsync(file.fileno())


def _lock(file: BinaryIO, folder: Path) -> None:
    """Lock a file as long as it is open here: a lock that worker processes, which may outlive this one, do not share.

    It would be lost if the file were opened a second time by this process, and closed.
    """
    if fcntl is None:
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.close()
        message = "another process is at work in the folder"
        raise InputError(message, context=str(folder), hint="wait for it", code="busy") from error


@contextmanager
def _reported(folder: Path) -> Iterator[None]:
    """Put what the system says of the folder in a user's words."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or "it cannot be written to"
        raise InputError(
            f"{reason[:1].lower()}{reason[1:]}",
            context=str(error.filename or folder),
            hint="look for space and permissions there, or write elsewhere with -o",
            code=UNWRITABLE,
        ) from error
