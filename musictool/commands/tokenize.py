"""`mtk tokenize`: MIDI files, or a token stream in another scheme -> a token stream or a token corpus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Protocol

import typer

from musictool.cli.environment import Environment, environment_of
from musictool.cli.exit_status import ExitStatus
from musictool.cli.files import OutputPlan, Source, expand_inputs
from musictool.cli.options import (
    ForceOption,
    InputsArgument,
    JobsOption,
    OutputOption,
    SeedOption,
    ShardOption,
    SkipExistingOption,
)
from musictool.cli.parallel import parallel_map, use_one_thread
from musictool.cli.progress import track
from musictool.errors import InputError, MusicToolError

if TYPE_CHECKING:
    from musictool.stream.records import Failure
    from musictool.symbolic.corpus import CorpusWriter
    from musictool.symbolic.tokenization import Item, Tokenization
    from musictool.symbolic.vocabulary import Vocabulary

EXAMPLES = (
    "mtk tokenize examples/waltz.mid --names | head -3",
    "mtk tokenize examples/ --scheme remi -o corpus.mtk.zst --force",
)
MIDI_SUFFIXES = (".mid", ".midi", ".kar", ".rmi", ".smf")


def tokenize(
    context: typer.Context,
    inputs: InputsArgument = None,
    output: OutputOption = None,
    scheme: Annotated[
        str, typer.Option("--scheme", "-s", metavar="NAME", help="tatum, mt3, remi or miditok:FILE.json.")
    ] = "tatum",
    names: Annotated[bool, typer.Option("--names", help="Write tokens by name.")] = False,
    show_vocab: Annotated[bool, typer.Option("--show-vocab", help="Print the scheme's vocabulary and exit.")] = False,
    style: Annotated[
        int | None, typer.Option("--style", min=0, show_default=False, metavar="K", help="Begin items with Style_K.")
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            "--augment",
            metavar="SPEC",
            show_default=False,
            help="Add variations of each item: pitch=-5..6,time=0.9..1.1,velocity=8,substitute=0.3 or some of these; "
            "substitute replaces dominant chords, each that likely.",
        ),
    ] = None,
    copies: Annotated[
        int, typer.Option("--copies", min=1, metavar="N", help="Variations an item, with --augment.")
    ] = 1,
    from_scheme: Annotated[
        str | None,
        typer.Option("--from", metavar="NAME", show_default=False, help="Read streams by a miditok:FILE.json."),
    ] = None,
    seed: SeedOption = 0,
    jobs: JobsOption = 1,
    shard: ShardOption = None,
    force: ForceOption = False,
    skip_existing: SkipExistingOption = False,
) -> int:
    """Turn MIDI files, or a token stream in another scheme, into a token stream.

    All items go into one stream: to standard output, or to the file that -o names (.mtk, or compressed as .mtk.zst or
    .mtk.gz). With a folder or a template, -o writes a stream for each item; with a name that ends in .parquet, a token
    corpus of one row an item. An input that cannot be read becomes a failed item, and the exit status is 1.
    """
    environment = environment_of(context)
    use_one_thread()
    from musictool.symbolic.augment import Augmentation
    from musictool.symbolic.schemes import find_scheme
    from musictool.symbolic.tokenization import Tokenization, check_style

    chosen = find_scheme(scheme)
    if show_vocab:
        environment.stdout.write(_vocabulary_table(chosen.vocabulary).encode())
        return ExitStatus.DONE
    check_style(chosen, style)
    augmentation = Augmentation.parse(augment) if augment else None
    options = Tokenization(scheme, style, augmentation, copies if augment else 0, seed, from_scheme)
    from musictool.stream.files import STREAM_SUFFIXES

    plan = OutputPlan(output, ".mtk", force, skip_existing)
    found = expand_inputs(inputs, (*MIDI_SUFFIXES, *STREAM_SUFFIXES), environment)
    sources = list(shard.take(found)) if shard else found
    with _open_sink(plan, environment) as sink:
        tasks = _plan_tasks(sources, options, sink, names)
        is_good = _run(tasks, sink, jobs, environment, is_alone=len(found) == 1)
    return ExitStatus.DONE if is_good else ExitStatus.FINDINGS


@dataclass(frozen=True)
class _Task:
    """One source, and how its items are numbered and handed over; goes to a worker process."""

    source: Source
    options: Tokenization
    first_number: int | None
    of: int | None
    as_lines: bool
    with_names: bool


@dataclass(frozen=True)
class _Made:
    """One item as it comes back: its lines, or the item itself for a corpus."""

    name: str
    failure: Failure | None = None
    is_variation: bool = False
    is_unreadable: bool = False
    lines: bytes = b""
    item: Item | None = None
    error: MusicToolError | None = None  # the source broke off after the items before


def _plan_tasks(sources: Sequence[Source], options: Tokenization, sink: _Sink, with_names: bool) -> list[_Task]:
    """A task for each source that is not done; items get their numbers where their count is known beforehand."""
    from musictool.symbolic.tokenization import variation_name

    tasks = []
    items_a_source = 1 + options.copies
    for source in sources:
        if not _may_be_stream(source):
            done = [sink.is_done(variation_name(source.name, copy)) for copy in range(items_a_source)]
            if all(done):
                continue
        tasks.append(_Task(source, options, None, None, sink.takes_lines, with_names))
    if sink.is_one_stream and not any(_may_be_stream(task.source) for task in tasks):
        of = len(tasks) * items_a_source
        tasks = [replace(task, first_number=1 + i * items_a_source, of=of) for i, task in enumerate(tasks)]
    elif not sink.is_one_stream:
        tasks = [replace(task, first_number=1, of=1) for task in tasks]
    elif len(tasks) > 1 or options.copies:
        tasks = [replace(task, first_number=0) for task in tasks]
    return tasks


def _may_be_stream(source: Source) -> bool:
    """Whether a source could hold any number of items."""
    from musictool.stream.files import is_stream_path

    return source.path is None or is_stream_path(source.path)


def _run(tasks: Sequence[_Task], sink: _Sink, jobs: int, environment: Environment, is_alone: bool) -> bool:
    """Do every task; whether all of it went well.

    Raises:
        InputError: the only input cannot be read (its failed item has been written all the same), or a stream broke.
    """
    is_good = True
    with track(_made_by(tasks, jobs, environment), environment, label="tokenize", total=len(tasks)) as results:
        for results_of_task in results:
            for made in results_of_task:
                if made.error is not None:
                    raise made.error
                sink.write(made)
                if made.failure is None:
                    continue
                is_good = False
                unreadable = InputError(made.failure.message, hint=made.failure.hint, code=made.failure.code)
                if is_alone and made.is_unreadable:
                    unreadable.context = str(tasks[0].source.path or "standard input")
                    raise unreadable
                if not made.is_variation:
                    environment.item_failed(made.name, unreadable)
    return is_good


def _made_by(tasks: Sequence[_Task], jobs: int, environment: Environment) -> Iterator[Iterable[_Made]]:
    """The items of every task in order; standard input, and all of it with one job, is worked on as it is taken."""
    if jobs == 1 or any(task.source.path is None for task in tasks):
        return (_make(task, environment) for task in tasks)
    return parallel_map(_make_all, tasks, jobs)


def _make_all(task: _Task) -> list[_Made]:
    return list(_make(task, None))


def _make(task: _Task, environment: Environment | None) -> Iterator[_Made]:
    """Tokenize one source, item by item."""
    from musictool.symbolic.schemes import find_scheme
    from musictool.symbolic.tokenization import failed_items, tokenize_file, tokenize_path

    source, options = task.source, task.options
    names = find_scheme(options.scheme).vocabulary if task.with_names else None
    if source.error is not None:
        items = failed_items(source.name, options, source.error)
    elif source.path is not None:
        items = tokenize_path(source.name, source.path, options)
    else:
        assert environment is not None
        items = tokenize_file(source.name, environment.stdin, options, "standard input")
    try:
        for index, item in enumerate(items):
            head = item.head
            if task.first_number is not None and task.of is not None:
                number = task.first_number + (index if task.of > 1 else 0)
                item = replace(item, head=replace(head, number=number, of=task.of))
            elif task.first_number == 0:
                item = replace(item, head=replace(head, number=None, of=None))
            lines = item.lines(names) if task.as_lines else b""
            is_variation = index % (1 + options.copies) > 0
            kept = None if task.as_lines else item
            yield _Made(head.item, item.failure, is_variation, item.is_unreadable, lines, kept)
    except MusicToolError as error:
        yield _Made(source.name, error=error)


class _Sink(Protocol):
    """Where items go."""

    takes_lines: bool
    is_one_stream: bool

    def is_done(self, name: str) -> bool:
        """Whether an item's output is there and is to be kept."""
        ...

    def write(self, made: _Made) -> None:
        """Take one item, failed or not."""
        ...


@dataclass
class _StreamSink:
    """All items in one stream."""

    file: BinaryIO
    takes_lines = True
    is_one_stream = True

    def is_done(self, name: str) -> bool:
        return False

    def write(self, made: _Made) -> None:
        self.file.write(made.lines)
        self.file.flush()


@dataclass
class _CorpusSink:
    """A row for each item that has not failed."""

    writer: CorpusWriter
    takes_lines = False
    is_one_stream = True

    def is_done(self, name: str) -> bool:
        return False

    def write(self, made: _Made) -> None:
        if made.item is not None and made.failure is None:
            self.writer.write(made.item)


@dataclass
class _FolderSink:
    """A stream for each item that has not failed."""

    plan: OutputPlan
    environment: Environment
    paths: dict[str, Path | None] = field(default_factory=dict)
    takes_lines = True
    is_one_stream = False

    def is_done(self, name: str) -> bool:
        if self.plan.is_done(self._path(name)):
            return True
        self.plan.check(self._path(name))
        return False

    def write(self, made: _Made) -> None:
        from musictool.stream.files import compressing

        path = self._path(made.name)
        if made.failure is not None or path is None or self.plan.is_done(path):
            return
        with self.plan.open(path, self.environment) as file, compressing(file, path.name) as plain:
            plain.write(made.lines)

    def _path(self, name: str) -> Path | None:
        if name not in self.paths:
            self.paths[name] = self.plan.path_for(name)
        return self.paths[name]


@contextmanager
def _open_sink(plan: OutputPlan, environment: Environment) -> Iterator[_Sink]:
    """The sink that `-o` asks for."""
    from musictool.stream.files import compressing
    from musictool.symbolic.corpus import CorpusWriter, is_corpus_path

    if not (plan.is_standard_output or plan.is_single_file):
        yield _FolderSink(plan, environment)
        return
    path = plan.path_for("")
    plan.check(path)
    with plan.open(path, environment) as file:
        if path is not None and is_corpus_path(path):
            writer = CorpusWriter(file)
            yield _CorpusSink(writer)
            writer.close()
        else:
            with compressing(file, path.name if path else "") as plain:
                yield _StreamSink(plain)


def _vocabulary_table(vocabulary: Vocabulary) -> str:
    """What a vocabulary declares, for people."""
    lines = [f"{vocabulary.name}: {len(vocabulary)} tokens, sha256 {vocabulary.fingerprint}"]
    for first, last, type, values in vocabulary.describe():
        ids = f"{first}" if first == last else f"{first}..{last}"
        lines.append(f"{ids:>12}  {type} {values}".rstrip())
    return "\n".join(lines) + "\n"
