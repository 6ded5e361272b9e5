"""What the verbs of `mtk eval` do alike: find the items to judge and their references, and report on them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from musictool.cli.environment import UNPRINTABLE, Environment
from musictool.cli.files import Source, expand_inputs
from musictool.cli.progress import track
from musictool.cli.streams import input_error_from
from musictool.errors import FindingsError, InputError, MusicToolError
from musictool.stream.records import StreamError

if TYPE_CHECKING:
    from musictool.metrics.assertions import Assertion
    from musictool.metrics.note_files import Kind, References
    from musictool.symbolic.notes import Score
    from musictool.symbolic.schemes import Scheme

T = TypeVar("T")


def find_sources(arguments: Sequence[str] | None, environment: Environment, kinds: Collection[Kind]) -> list[Source]:
    """The inputs of a run, as `expand_inputs` finds them; files that are named may be of any kind.

    Args:
        arguments: files, folders, patterns, or `-`; none at all is standard input.
        environment: tells whether standard input is a terminal.
        kinds: of files that folders are searched for; not for .txt, which is as likely a readme.
    """
    from musictool.metrics.note_files import KIND_OF_SUFFIX

    suffixes = [suffix for suffix, kind in KIND_OF_SUFFIX.items() if kind in kinds and suffix != ".txt"]
    return expand_inputs(arguments, suffixes, environment)


@contextmanager
def tracked(results: Iterable[T], environment: Environment, *, by_table: bool) -> Iterator[Iterable[T]]:
    """Show how many items of a run are done, unless a table that grows on the same terminal does so."""
    if by_table and environment.is_stdout_terminal:
        yield results
        return
    with track(results, environment, label="eval") as watched:
        yield watched


@dataclass(frozen=True)
class Candidate:
    """One item to judge.

    Attributes:
        names: what it is called, the best name first.
        notes: the piece, or the file that holds it.
        is_sound: whether that file holds no notes but sound.
    """

    names: tuple[str, ...]
    notes: Score | Path
    is_sound: bool = False

    @property
    def name(self) -> str:
        return self.names[0]


class Items:
    """The items of one run: read one after the other, those that fail named and remembered.

    Args:
        environment: where failures are told.
        own: a scheme that only the caller knows, such as one from a MidiTok file.

    Attributes:
        failures: items that could not be judged, as plain JSON values.
        broken: why a stream could not be read to its end.
    """

    def __init__(self, environment: Environment, own: Scheme | None) -> None:
        self.failures: list[dict[str, str]] = []
        self.broken: InputError | None = None
        self._environment = environment
        self._own = own
        self._is_alone = False

    def read(self, sources: Sequence[Source]) -> Iterator[Candidate]:
        """Every item of some inputs, made as it is asked for.

        Raises:
            InputError: the only input, a file, cannot be read.
        """
        for source in sources:
            with self.failing(source.name):
                if source.error is not None:
                    raise source.error
                self._is_alone = len(sources) == 1
                try:
                    yield from self._items_of(source)
                except StreamError as error:
                    if len(sources) > 1:
                        self._environment.item_failed(source.name, error)
                    self.broken = error

    def pairs(self, sources: Sequence[Source], references: References) -> Iterator[tuple[Candidate, Score | Path]]:
        """Every item of some inputs that has a reference, and that; a file that is its own reference is left out.

        Raises:
            InputError: as `read`.
        """
        for candidate in self.read(sources):
            with self.failing(candidate.name):
                reference = references.find(*candidate.names)
                if _are_one_file(reference, candidate.notes):
                    self._environment.note("left out, since it is its own reference", context=str(candidate.notes))
                else:
                    yield candidate, reference

    @contextmanager
    def failing(self, name: str) -> Iterator[None]:
        """Take what cannot be read inside for the failure of one item, as `fail` does."""
        try:
            yield
        except OSError as error:
            self.fail(name, input_error_from(error))
        except InputError as error:
            self.fail(name, error)

    def fail(self, name: str, error: MusicToolError) -> None:
        """Name an item that cannot be judged; if it is all there is, end the run."""
        if self._is_alone and error.code != "no-reference":
            raise error
        self.failures.append({"item": name, "code": error.code, "message": str(error)})
        self._environment.item_failed(name, error)

    def _items_of(self, source: Source) -> Iterator[Candidate]:
        from musictool.metrics.note_files import kind_of, split_suffix

        if source.path is None:
            yield from self._items_of_stream(self._environment.stdin, "standard input")
            return
        with open(source.path, "rb") as file:
            kind = kind_of(source.path, file.read(12))
        if kind == "stream":
            with open(source.path, "rb") as file:
                yield from self._items_of_stream(file, str(source.path))
            return
        stem, _ = split_suffix(source.path.name)
        yield Candidate((source.name, stem), source.path, kind == "audio")

    def _items_of_stream(self, raw: BinaryIO, context: str) -> Iterator[Candidate]:
        from musictool.metrics.note_files import stream_scores
        from musictool.stream.files import decompressing

        self._is_alone = False
        with decompressing(raw, context) as plain:
            for name, score in stream_scores(plain, context, self._own):
                if isinstance(score, MusicToolError):
                    self.fail(name, score)
                else:
                    yield Candidate((name,), score)


class Table:
    """A table on standard output that grows line by line, with the name of what a line is about at its end.

    Args:
        environment: whose standard output it is.
        headings: of the cells, each as wide as its column.
        subject: the heading of the names.
    """

    def __init__(self, environment: Environment, headings: Sequence[str], subject: str = "item") -> None:
        self._stdout = environment.stdout
        self._widths = [len(heading) for heading in headings]
        self._write([*headings, subject])

    def row(self, cells: Sequence[str], name: str) -> None:
        """Write a line, its cells set to the right."""
        padded = [f"{cell:>{width}}" for cell, width in zip(cells, self._widths, strict=True)]
        self._write([*padded, UNPRINTABLE.sub("_", name)])

    def _write(self, cells: Sequence[str]) -> None:
        self._stdout.write("  ".join(cells).encode() + b"\n")
        self._stdout.flush()


def demand_records(demands: Sequence[Assertion], mean: Mapping[str, float | None]) -> list[dict[str, object]]:
    """Which conditions a mean fulfils, as plain JSON values."""
    return [{"condition": demand.text, "holds": demand.holds(mean[demand.metric])} for demand in demands]


def are_fulfilled(demands: Sequence[Assertion], mean: Mapping[str, float | None], environment: Environment) -> bool:
    """Whether a mean is as it has to be; where it is not, it is said by how much."""
    missed = [demand for demand in demands if not demand.holds(mean[demand.metric])]
    for demand in missed:
        value = mean[demand.metric]
        found = "there is none" if value is None else f"it is {value:.6g}"
        message = f"mean {demand.metric} is to be {demand.symbol} {demand.bound:g}, and {found}"
        environment.error(FindingsError(message, context="--assert", code="assertion"))
    return not missed


def _are_one_file(one: Score | Path, other: Score | Path) -> bool:
    return isinstance(one, Path) and isinstance(other, Path) and one.samefile(other)
