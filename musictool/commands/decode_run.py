"""One run of `mtk decode`: items as they come, each into a file or onto standard output, and what went wrong."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from musictool.cli.environment import Environment
from musictool.cli.exit_status import ExitStatus
from musictool.cli.files import OutputPlan, Source, atomic_writer
from musictool.cli.parallel import parallel_map
from musictool.cli.progress import track
from musictool.cli.streams import NamedFile, input_error_from
from musictool.commands.codec_processes import use_one_core
from musictool.commands.decode_forms import Coded, CodesForm, ScoreForm
from musictool.errors import InputError, MusicToolError, UsageError

if TYPE_CHECKING:
    from musictool.stream.reader import Codebooks, ItemReader, Tokens
    from musictool.stream.records import Head
    from musictool.symbolic.notes import Score
    from musictool.symbolic.schemes import Scheme

T = TypeVar("T")


@dataclass(frozen=True)
class Plans:
    """Where results go: those of notes, and those of codes, which are the same unless suffixes differ."""

    notes: OutputPlan
    codes: OutputPlan


class Forms:
    """What items are turned into.

    Args:
        notes: the form of events.
        codes: makes the form of codes, when there are some.
    """

    def __init__(self, notes: ScoreForm, codes: Callable[[], CodesForm]) -> None:
        self.notes = notes
        self._make_codes = codes
        self._codes: CodesForm | None = None

    @property
    def codes(self) -> CodesForm:
        """The form of codes."""
        if self._codes is None:
            self._codes = self._make_codes()
        return self._codes

    def prepare_codes(self) -> None:
        """Get ready for codes before there are any, so that the first are not late, and what can't be is said at once.

        Raises:
            MissingError, InputError, ResourceError, UsageError: the codec that is asked for cannot be used.
        """
        codecs = self.codes.codecs
        if codecs.model is not None:
            codecs.load(codecs.model)


@dataclass(frozen=True)
class _Item:
    """One item, not yet read.

    Attributes:
        name: what it is called.
        read: gives its notes, or its codes, which are then still to be read.
        of: how many items its stream was begun with, if it says so.
        is_file: whether it is all that its source holds, which then stands and falls with it.
    """

    name: str
    read: Callable[[], Score | Coded]
    of: int | None = None
    is_file: bool = False


@dataclass(frozen=True)
class _Job:
    """One file to write; goes to a worker process.

    Attributes:
        name: of the item.
        write: writes it, and says how many samples were clipped.
        path: the file.
        force: replace one that is there.
        is_codes: whether a codec writes it.
    """

    name: str
    write: Callable[[BinaryIO], int]
    path: Path
    force: bool
    is_codes: bool


@dataclass(frozen=True)
class _Written:
    """What came of an item: how many of its samples were clipped, or what went wrong with it alone."""

    name: str
    clipped: int = 0
    error: MusicToolError | None = None


class DecodeRun:
    """Reads items, writes files, remembers what went wrong.

    Args:
        environment: the world around it.
        plans: where results go.
        forms: what they are.
        own: a scheme that only the caller knows.
    """

    def __init__(self, environment: Environment, plans: Plans, forms: Forms, own: Scheme | None) -> None:
        self._environment = environment
        self._plans = plans
        self._forms = forms
        self._own = own
        self._failed = 0
        self._broken: InputError | None = None

    @property
    def exit_status(self) -> int:
        """What the run amounts to.

        Raises:
            InputError: a source broke.
        """
        if self._broken is not None:
            raise self._broken
        return ExitStatus.FINDINGS if self._failed else ExitStatus.DONE

    def to_files(self, sources: Sequence[Source], jobs: int) -> None:
        """Write a file for each item; with one job each as its codes come in."""
        if jobs == 1:
            written = self._each(sources, self._write)
        else:
            written = parallel_map(_write_alone, self._each(sources, partial(self._job, is_whole=True)), jobs)
        with track(written, self._environment, label="decode") as results:
            for result in results:
                self._report(result)

    def to_standard_output(self, sources: Sequence[Source], *, is_live: bool) -> None:
        """Write the only item; nothing is written if there are more, unless its sound is to go out as it is made."""
        with tempfile.TemporaryFile() as spool:
            sink = self._environment.stdout if is_live else cast(BinaryIO, spool)
            count = 0

            def write(item: _Item) -> _Written:
                nonlocal count
                write_to = self._writer_of(item.read())
                if count or (is_live and (item.of or 1) > 1):
                    raise UsageError("more than one item for standard output", hint="write files with -o DIR/")
                if not is_live:
                    spool.seek(0)
                    spool.truncate()
                clipped = write_to(sink)
                count += 1
                return _Written(item.name, clipped)

            for written in self._each(sources, write):
                self._report(written)
            if count and not is_live and self._broken is None:
                spool.seek(0)
                shutil.copyfileobj(spool, self._environment.stdout)

    def _write(self, item: _Item) -> _Written | None:
        job = self._job(item)
        return None if job is None else _write_file(job)

    def _job(self, item: _Item, *, is_whole: bool = False) -> _Job | None:
        """An item's file, with all of its codes read if it is to go to a process of its own; None if it is there."""
        payload = item.read()
        is_codes = isinstance(payload, Coded)
        plan = self._plans.codes if is_codes else self._plans.notes
        path = plan.path_for(item.name)
        assert path is not None
        is_done = plan.is_done(path)
        if not is_done:
            plan.check(path)
        if isinstance(payload, Coded) and (is_whole or is_done):  # what is there may still be of a failed item
            from musictool.inference.coded_sound import WholeCodes

            payload = replace(payload, sound=WholeCodes.of(payload.sound))
        return None if is_done else _Job(item.name, self._writer_of(payload), path, plan.force, is_codes)

    def _writer_of(self, payload: Score | Coded) -> Callable[[BinaryIO], int]:
        """What writes an item to a file, and says how many samples were clipped."""
        if isinstance(payload, Coded):
            return partial(self._forms.codes.write, payload)
        return partial(self._forms.notes.write, payload)

    def _report(self, written: _Written) -> None:
        if written.error is not None:
            self._fail(written.name, written.error)
        if written.clipped:
            many = "1 sample was" if written.clipped == 1 else f"{written.clipped} samples were"
            hint = "--bits 32 keeps what is too loud, in wav"
            self._environment.warn(f"{many} clipped", context=written.name, hint=hint, code="clipping")

    def _fail(self, name: str, error: MusicToolError) -> None:
        self._failed += 1
        self._environment.item_failed(name, error)

    def _each(self, sources: Sequence[Source], take: Callable[[_Item], T | None]) -> Iterator[T]:
        """What is made of each item of every source, while that is read; None is left out."""
        from musictool.stream.records import ItemFailed, StreamError

        for source in sources:
            try:
                with closing(self._items(source)) as items:
                    for item in items:
                        try:
                            made = take(item)
                        except (InputError, ItemFailed) as error:
                            is_all = item.is_file and len(sources) == 1
                            if isinstance(error, StreamError) or error.code == "no-space" or is_all:
                                raise
                            self._fail(item.name, error)
                        else:
                            if made is not None:
                                yield made
            except InputError as error:
                if error.code == "no-space":
                    raise
                if len(sources) > 1:
                    self._environment.item_failed(source.name, error)
                self._broken = error

    def _items(self, source: Source) -> Generator[_Item, None, None]:
        """The items of a source: those of a stream, or an `.ecdc` file, told by its first bytes."""
        from musictool.inference.ecdc import MAGIC
        from musictool.stream.files import decompressing
        from musictool.stream.reader import StreamReader

        if source.error is not None:
            raise source.error
        context = str(source.path or "standard input")
        with _opened(source, self._environment) as raw, decompressing(raw, context) as plain:
            if plain.peek(len(MAGIC)).startswith(MAGIC):
                yield _Item(source.name, partial(_read_ecdc, plain, context), is_file=True)
                return
            for item in StreamReader(plain, self._lookup, context):
                yield _Item(item.head.item, partial(self._read, item), item.head.of)

    def _lookup(self, head: Head) -> Tokens | Codebooks | None:
        """What a reader checks an item by."""
        from musictool.symbolic.schemes import lookup_events

        return self._forms.codes.codecs.codebooks(head) if head.kind == "codes" else lookup_events(head, self._own)

    def _read(self, item: ItemReader) -> Score | Coded:
        from musictool.symbolic.schemes import find_scheme
        from musictool.symbolic.tokenization import decode_item

        head = item.head
        if head.kind == "codes":
            from musictool.inference.coded_sound import ItemCodes, source_rate_of

            return Coded(ItemCodes(item), head.vocab, head.vocab_sha, source_rate_of(head.meta), head.meta)
        scheme = self._own if self._own and self._own.name == head.vocab else find_scheme(head.vocab)
        return decode_item(item, scheme)


def _read_ecdc(file: BinaryIO, context: str) -> Coded:
    """The codes of an `.ecdc` file, which are still to be read."""
    from musictool.inference.coded_sound import EcdcCodes
    from musictool.inference.ecdc import read_ecdc

    header, chunks = read_ecdc(file, context)
    return Coded(EcdcCodes(chunks, header.samples), header.preset, None, None)


def _write_file(job: _Job) -> _Written:
    """Write one file.

    Raises:
        InputError, ItemFailed: its codes make no sense, break off or were given up; or there is no room for it.
    """
    try:
        with atomic_writer(job.path, force=job.force) as file:
            return _Written(job.name, job.write(file))
    except OSError as error:
        error.filename = error.filename or str(job.path)  # libsndfile's errors bear no name
        raise


def _write_alone(job: _Job) -> _Written:
    """Write one file in a process beside others, or say what is wrong with this item alone."""
    if job.is_codes:
        use_one_core()
    try:
        return _write_file(job)
    except InputError as error:
        if error.code == "no-space":
            raise
        return _Written(job.name, error=error)


@contextmanager
def _opened(source: Source, environment: Environment) -> Iterator[BinaryIO]:
    """A source's bytes, with its name in their errors."""
    if source.path is None:
        yield environment.stdin
        return
    try:
        descriptor = os.open(source.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise input_error_from(error) from error
    with io.BufferedReader(NamedFile(descriptor, "rb", str(source.path))) as file:
        yield cast(BinaryIO, file)
