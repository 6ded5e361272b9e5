"""What the stages of `mtk data` have in common on the command line: their input, the run, lists that are piped on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musictool.cli.environment import Environment
from musictool.cli.exit_status import ExitStatus
from musictool.cli.files import OutputPlan, Shard, Source, expand_inputs
from musictool.cli.parallel import parallel_map, use_one_thread
from musictool.cli.progress import track
from musictool.cli.streams import STANDARD_INPUT
from musictool.config import from_dict
from musictool.errors import InputError, MusicToolError, UsageError

if TYPE_CHECKING:
    from musictool.training.data.pipeline.items import Item
    from musictool.training.data.pipeline.ledger import Ledger
    from musictool.training.data.pipeline.stage import Stage

ItemsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        show_default=False,
        help="Folders of an earlier stage, lists of items (.jsonl), sound files, folders of them, or - (or nothing) "
        "for the lines that an earlier stage pipes on.",
    ),
]
FolderOption = Annotated[
    str, typer.Option("--output", "-o", metavar="DIR/", show_default=False, help="The folder that the stage fills.")
]
AgainOption = Annotated[
    bool, typer.Option("--force", "-f", help="Make again what would come out otherwise now, or is damaged.")
]
GoOnOption = Annotated[
    bool, typer.Option("--skip-existing", help="Go on where an earlier run ended; what is done is left as it is.")
]


@dataclass(frozen=True)
class RunOptions:
    """How a stage is run, whichever it is.

    Attributes:
        output: the folder it fills; None for a stage that needs none.
        jobs: processes.
        shard: the share of the input to take.
        force: make again what would come out otherwise.
        skip_existing: go on with what is there.
    """

    output: str | None
    jobs: int = 1
    shard: Shard | None = None
    force: bool = False
    skip_existing: bool = False


@dataclass(frozen=True)
class StageInput:
    """What a stage is given.

    Attributes:
        items: in order, once.
        count: how many there are, where that is known.
    """

    items: Iterable[Item]
    count: int | None = None

    def shared(self, shard: Shard | None) -> StageInput:
        """A share of it."""
        if shard is None:
            return self
        count = None if self.count is None else len(range(shard.number - 1, self.count, shard.count))
        return StageInput(islice(self.items, shard.number - 1, None, shard.count), count)


def settings_of(kind: type[Any], verb: str, **values: Any) -> Any:
    """A stage's settings from a verb's options.

    Raises:
        UsageError: they make no sense.
    """
    return from_dict(kind, values, f"mtk data {verb}")


def run_verb(
    environment: Environment,
    settings: Any,
    read: Callable[[StageRun], StageInput],
    options: RunOptions,
) -> int:
    """Run one stage.

    Args:
        environment: where messages and lines go.
        settings: of the stage.
        read: finds what it is given.
        options: how it is run.
    """
    plan = OutputPlan(options.output and f"{options.output}/", "", options.force, options.skip_existing)
    use_one_thread()
    from musictool.training.data.pipeline.items import END_LINE
    from musictool.training.data.pipeline.ledger import Ledger
    from musictool.training.data.pipeline.stage import Stage

    stage = Stage.of(settings)
    ledger = None
    if options.output is not None:
        shard = options.shard
        share = f"{shard.number}-of-{shard.count}" if shard else ""
        ledger = Ledger(Path(options.output), stage, share, replaces=plan.force)
        if ledger.is_begun and not (plan.force or plan.skip_existing):
            hint = "go on with --skip-existing, or make again with --force what would come out otherwise"
            raise UsageError(
                "the stage has filled the folder, or begun to", context=options.output, hint=hint, code="exists"
            )
    run = StageRun(environment, stage, ledger, options.jobs)
    given = read(run).shared(options.shard)
    is_piped = not environment.is_stdout_terminal or ledger is None
    for item in run.work(given):
        if is_piped:
            environment.stdout.write(item.line(None))
            environment.stdout.flush()
    if is_piped:
        environment.stdout.write(END_LINE)
    return ExitStatus.FINDINGS if run.has_failed else ExitStatus.DONE


# ------------------------------------------------------------------------------------------------------------- input


def read_items(arguments: Sequence[str] | None, run: StageRun) -> StageInput:
    """The items that arguments mean."""
    from musictool.audio.checks import AUDIO_SUFFIXES
    from musictool.training.data.pipeline.items import LIST_SUFFIX, manifests_of, read_lines, read_manifest

    environment = run.environment
    if not arguments or list(arguments) == ["-"]:
        if not arguments and environment.is_stdin_terminal:
            raise UsageError("no input", hint="name folders or files, or pipe a stage's items in")
        return StageInput(read_lines(iter(environment.stdin.readline, b""), STANDARD_INPUT))
    items: list[Item] = []
    plain = []
    for argument in arguments:
        path = Path(argument)
        manifests = manifests_of(path) if path.is_dir() else [path] if path.suffix == LIST_SUFFIX else []
        items += [item for manifest in manifests for item in read_manifest(manifest)]
        if not manifests:
            plain.append(argument)
    sources = expand_inputs(plain, AUDIO_SUFFIXES, environment) if plain else []
    return StageInput([*items, *run.items_of(sources)])


def read_recordings(arguments: Sequence[str] | None, run: StageRun) -> StageInput:
    """The recordings that arguments mean: files, folders, globs, addresses, and lists of them, one a line."""
    from musictool.audio.checks import AUDIO_SUFFIXES
    from musictool.training.data.pipeline.fetching import check_fetcher, is_address, item_of_address

    named = _listed(arguments, run.environment)
    addresses = [argument for argument in named if is_address(argument)]
    if addresses:
        check_fetcher()
    files = [argument for argument in named if not is_address(argument)]
    sources = expand_inputs(files, AUDIO_SUFFIXES, run.environment) if files else []
    items = [*run.items_of(sources), *(item_of_address(address) for address in dict.fromkeys(addresses))]
    return StageInput(items, len(items))


def _listed(arguments: Sequence[str] | None, environment: Environment) -> list[str]:
    """Arguments, with the lines of lists in their places."""
    if not arguments and environment.is_stdin_terminal:
        raise UsageError("no input", hint="name files, folders or addresses, or pipe a list of them in")
    found: list[str] = []
    for argument in arguments or ["-"]:
        if argument == "-":
            found += _lines(environment.stdin.read(), STANDARD_INPUT)
        elif argument.endswith(".txt"):
            try:
                found += _lines(Path(argument).read_bytes(), argument)
            except OSError as error:
                reason = (error.strerror or "cannot be read").lower()
                raise InputError(reason, context=argument) from error
        else:
            found.append(argument)
    if not found:
        raise InputError("the list of recordings is empty", context=", ".join(arguments or ["-"]))
    return found


def _lines(data: bytes, label: str) -> list[str]:
    try:
        lines = (line.strip() for line in data.decode().splitlines())
    except UnicodeDecodeError as error:
        raise InputError("the list of recordings is no text", context=label) from error
    return [line for line in lines if line and not line.startswith("#")]


# --------------------------------------------------------------------------------------------------------------- run


@dataclass(frozen=True)
class _Task:
    """An item to work on, and where; nowhere if there is nothing to do."""

    item: Item
    scratch: Path | None = None
    error: InputError | None = None


@dataclass(frozen=True)
class _Made:
    """What became of a task."""

    task: _Task
    items: Sequence[Item] = ()
    error: InputError | None = None


class StageRun:
    """One run of a stage.

    Args:
        environment: where messages go.
        stage: what is done.
        ledger: of the folder that is filled; None for a stage that makes no files.
        jobs: processes.

    Attributes:
        environment: where messages go.
        has_failed: whether an item has.
        failed: the items that have.
    """

    def __init__(self, environment: Environment, stage: Stage, ledger: Ledger | None, jobs: int) -> None:
        self.environment = environment
        self.has_failed = False
        self.failed: list[Item] = []
        self._stage = stage
        self._ledger = ledger
        self._jobs = 1 if stage.is_in_one_process else jobs

    def items_of(self, sources: Iterable[Source]) -> list[Item]:
        """The items of sound files; what cannot be read is reported."""
        from musictool.training.data.pipeline.items import item_of_file

        items = []
        for source in sources:
            try:
                if source.error is not None:
                    raise source.error
                assert source.path is not None
                items.append(item_of_file(source.path, source.name))
            except InputError as error:
                self._report(source.name, error)
        return items

    def work(self, given: StageInput, is_used_up: Callable[[Item], bool] | None = None) -> Iterator[Item]:
        """Do what is not done yet.

        Args:
            given: the stage's input.
            is_used_up: whether nobody needs the files of something that was made any more.

        Yields:
            What comes out, in the order of the input, and then what an earlier run made of items that are gone.
        """
        ledger, names = self._ledger, set[str]()
        count = total = 0
        with ledger.at_work() if ledger is not None else nullcontext():
            tasks = self._tasks(given.items, names, is_used_up)
            made = parallel_map(partial(_work, self._stage), tasks, self._jobs)
            with track(made, self.environment, label=self._stage.name, total=given.count) as tracked:
                for result in tracked:
                    items = self._settled(result)
                    count, total = count + len(items), total + 1
                    yield from items
            if ledger is not None:
                others = ledger.forget_others(names)
                if others:
                    self._tell_of_others(others)
                ledger.finish()
        self.environment.note(f"{self._stage.name}: {total} in, {count} out")

    def _tasks(
        self, items: Iterable[Item], names: set[str], is_used_up: Callable[[Item], bool] | None
    ) -> Iterator[_Task]:
        """What is to be done about each item; their names are collected."""
        for item in items:
            try:
                if item.name in names:
                    raise InputError("another item has this name", code="duplicate-name")
                names.add(item.name)
                is_done = self._ledger is not None and self._ledger.is_done(item, is_used_up)
            except InputError as error:
                yield _Task(item, error=error)
            else:
                yield _Task(item, None if is_done else self._scratch())

    def _scratch(self) -> Path:
        return Path() if self._ledger is None else self._ledger.scratch()

    def _settled(self, made: _Made) -> Sequence[Item]:
        """Let what was made take its place, or report why nothing was."""
        task, ledger = made.task, self._ledger
        try:
            if made.error is not None:
                raise made.error
            if ledger is None:
                return made.items
            return ledger.items(task.item) if task.scratch is None else ledger.add(task.item, made.items, task.scratch)
        except InputError as error:
            if _is_fatal(error):
                raise
            if ledger is not None and task.scratch is not None:
                shutil.rmtree(task.scratch, ignore_errors=True)
            self.failed.append(task.item)
            self._report(task.item.name, error)
            return ()

    def _tell_of_others(self, count: int) -> None:
        what = "what an earlier run made of items that are not in the input now"
        assert self._ledger is not None
        done = "is removed" if self._ledger.replaces else "stays; --force removes it"
        self.environment.note(f"{what} {done}: {count}", context=str(self._ledger.folder))

    def _report(self, name: str, error: MusicToolError) -> None:
        self.has_failed = True
        self.environment.item_failed(name, error)


def _work(stage: Stage, task: _Task) -> _Made:
    """Do one task; runs in a worker process."""
    from musictool.training.data.pipeline.outlet import Outlet

    if task.scratch is None:
        return _Made(task, error=task.error)
    try:
        return _Made(task, stage.make(task.item, Outlet(task.scratch)))
    except InputError as error:
        if _is_fatal(error):
            raise
        return _Made(task, error=error)


def _is_fatal(error: InputError) -> bool:
    """Whether other items would fare no better."""
    from musictool.training.data.pipeline.outlet import UNWRITABLE

    return error.code == UNWRITABLE
