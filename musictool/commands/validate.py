"""`mtk validate`: MIDI files, sound files, token streams and token corpora -> what is wrong with them."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from musictool.cli.environment import UNPRINTABLE, Environment, environment_of
from musictool.cli.exit_status import ExitStatus
from musictool.cli.files import Source, atomic_writer, expand_inputs
from musictool.cli.options import ForceOption, InputsArgument, JobsOption, ShardOption
from musictool.cli.parallel import parallel_map, use_one_thread
from musictool.cli.progress import track
from musictool.errors import UsageError

if TYPE_CHECKING:
    from musictool.validation.reports import Report, ValidationRules

EXAMPLES = (
    "mtk validate examples/waltz.mid --set notes.min=10",
    "mtk tokenize examples/waltz.mid | mtk validate --json",
)
NAME_WIDTHS = 24, 48
REPORTS_HELD = 1000
_STYLES = {"ok": "green", "warn": "yellow", "bad": "bold red"}


def validate(
    context: typer.Context,
    inputs: InputsArgument = None,
    rules_file: Annotated[
        Path | None, typer.Option("--rules", metavar="FILE", show_default=False, help="Rules as TOML.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            show_default=False,
            help="One rule, as in notes.min=50 or instruments.allowed='[\"piano\"]'; may be repeated.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line for each item, no table.")] = False,
    good: Annotated[
        Path | None, typer.Option("--good", metavar="FILE", show_default=False, help="List what is good.")
    ] = None,
    bad: Annotated[
        Path | None, typer.Option("--bad", metavar="FILE", show_default=False, help="List what is not.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Take warnings for errors.")] = False,
    scheme: Annotated[
        str | None,
        typer.Option("--scheme", metavar="NAME", show_default=False, help="Read streams by a miditok:FILE.json."),
    ] = None,
    jobs: JobsOption = 1,
    shard: ShardOption = None,
    force: ForceOption = False,
) -> int:
    """Check MIDI files, sound files, token streams and token corpora.

    A table says what each item is like and what is wrong with it; two items of one kind with the same content are
    found whatever they are called. Lists have a file's path or, for what is inside a stream or corpus, the item's name
    on each line.

    Exit status: 0 all is good, warnings aside; 1 there are findings, an unreadable file among several is one; 3 a
    stream or corpus is broken, or the only input is unreadable.
    """
    environment = environment_of(context)
    if good is not None and good == bad:
        raise UsageError("--good and --bad name one file", context=str(good))
    use_one_thread()
    from musictool.config import apply_overrides, from_dict, load_toml
    from musictool.symbolic.schemes import find_scheme
    from musictool.validation.inputs import KIND_OF_SUFFIX
    from musictool.validation.reports import ValidationRules
    from musictool.validation.verdict import Verdict

    table = apply_overrides(load_toml(rules_file) if rules_file else {}, settings or ())
    rules = from_dict(ValidationRules, table, str(rules_file or "--set"))
    if scheme is not None:
        find_scheme(scheme)
    found = expand_inputs(inputs, tuple(KIND_OF_SUFFIX), environment)
    sources = list(shard.take(found)) if shard else found

    reports = _reports(sources, partial(_check, rules=rules, scheme=scheme), jobs, environment)
    verdict = Verdict(rules, strict)
    with ExitStack() as stack:
        lists = {
            is_good: stack.enter_context(atomic_writer(path, force=force))
            for is_good, path in ((True, good), (False, bad))
            if path is not None
        }
        show = stack.enter_context(_json_lines(environment) if as_json else _table(sources, environment))
        if not environment.is_stdout_terminal:  # there the table itself shows how far the run is
            reports = stack.enter_context(track(reports, environment, label="validate", total=len(sources)))
        for report in (verdict.pass_on(report) for of_source in reports for report in of_source):
            is_good = verdict.is_good(report)
            show(report, verdict.status(report))
            if is_good in lists:
                lists[is_good].write(os.fsencode(report.label.replace("\n", " ")) + b"\n")
            if report.error is not None and len(found) > 1 and report.kind in ("stream", "corpus"):
                environment.item_failed(report.name, report.error)
        if as_json:
            environment.note(verdict.summary())
        else:
            environment.stdout.write(f"{verdict.summary()}\n".encode())
    if verdict.error is not None and len(found) == 1:
        raise verdict.error
    if verdict.is_broken:
        return ExitStatus.INPUT
    return ExitStatus.FINDINGS if verdict.has_bad else ExitStatus.DONE


def _check(
    source: Source, rules: ValidationRules, scheme: str | None, stdin: BinaryIO | None = None
) -> Iterator[Report]:
    """Check one source."""
    from musictool.validation.inputs import check_file, kind_of
    from musictool.validation.reports import unreadable

    if source.error is not None:
        return iter([unreadable(source.name, source.path, kind_of(source.path, b""), source.error)])
    file = source.path if source.path is not None else stdin
    assert file is not None
    return check_file(source.name, file, rules, scheme)


def _reports(
    sources: Sequence[Source], check: Callable[..., Iterator[Report]], jobs: int, environment: Environment
) -> Iterator[Iterable[Report]]:
    """The reports on every source in order; standard input, and all of it with one job, is read as they are taken."""
    if jobs == 1 or len(sources) == 1 or any(source.path is None for source in sources):
        yield from (check(source, stdin=environment.stdin) for source in sources)
        return
    with TemporaryDirectory(prefix="mtk-") as folder:
        for result in parallel_map(partial(_check_all, check=check, folder=folder), sources, jobs):
            yield _unspooled(result) if isinstance(result, str) else result


def _check_all(source: Source, check: Callable[..., Iterator[Report]], folder: str) -> list[Report] | str:
    """Check one source in a process of its own; many reports go into a file, whose name stands for them."""
    reports = check(source)
    first = list(islice(reports, REPORTS_HELD))
    if len(first) < REPORTS_HELD:
        return first
    with NamedTemporaryFile(dir=folder, delete=False) as spool:
        for report in chain(first, reports):
            pickle.dump(report, spool)
        return spool.name


def _unspooled(name: str) -> Iterator[Report]:
    with open(name, "rb") as spool:
        while spool.peek(1):
            yield pickle.load(spool)
    os.unlink(name)


@contextmanager
def _json_lines(environment: Environment) -> Iterator[Callable[[Report, str], None]]:
    def show(report: Report, status: str) -> None:
        line = json.dumps(report.to_json(is_ok=status != "bad"), allow_nan=False)
        environment.stdout.write(line.encode() + b"\n")
        environment.stdout.flush()

    yield show


@contextmanager
def _table(sources: Sequence[Source], environment: Environment) -> Iterator[Callable[[Report, str], None]]:
    """Rows as they come, in columns wide enough; with colours on a terminal."""
    longest = max((len(source.name) for source in sources), default=0)
    width = min(max(longest, NAME_WIDTHS[0]), NAME_WIDTHS[1])
    write = _terminal_writer(environment) if environment.is_stdout_terminal else _plain_writer(environment)
    write("", f"{'':4}  {'kind':6}  {'seconds':>9}  {'notes':>9}  {'tokens':>11}  {'item':{width}}  findings")

    def show(report: Report, status: str) -> None:
        facts = report.facts
        seconds = f"{facts['duration_seconds']:.1f}" if "duration_seconds" in facts else "-"
        findings = "; ".join(finding.message for finding in report.findings)
        cells = f"{report.kind:6}  {seconds:>9}  {facts.get('notes', '-'):>9}  {facts.get('tokens', '-'):>11}"
        row = f"{status:4}  {cells}  {report.name:{width}}  {findings}"
        write(status, UNPRINTABLE.sub("_", row).rstrip())

    yield show


def _plain_writer(environment: Environment) -> Callable[[str, str], None]:
    def write(status: str, row: str) -> None:
        environment.stdout.write(row.encode() + b"\n")
        environment.stdout.flush()

    return write


def _terminal_writer(environment: Environment) -> Callable[[str, str], None]:
    import io

    from rich.console import Console
    from rich.text import Text

    def write(status: str, row: str) -> None:
        text = Text(row, style="bold" if not status else "")
        text.stylize(_STYLES.get(status, ""), 0, len(status))
        with console.capture() as captured:
            console.print(text, soft_wrap=True)
        environment.stdout.write(captured.get().encode())
        environment.stdout.flush()

    console = Console(file=io.StringIO(), force_terminal=True)
    return write
