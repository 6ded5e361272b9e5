"""`mtk decode`: a token stream -> MIDI files or sound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import typer

from musictool.cli.environment import Environment, environment_of
from musictool.cli.exit_status import ExitStatus
from musictool.cli.files import OutputPlan, Source, atomic_writer, expand_inputs, refuse_terminal
from musictool.cli.options import (
    ForceOption,
    InputsArgument,
    JobsOption,
    OutputOption,
    ShardOption,
    SkipExistingOption,
)
from musictool.cli.parallel import parallel_map, use_one_thread
from musictool.cli.progress import track
from musictool.errors import InputError, MusicToolError, UsageError

if TYPE_CHECKING:
    from musictool.symbolic.notes import Score
    from musictool.symbolic.schemes import Scheme
    from musictool.symbolic.synthesis import SynthesizerName

EXAMPLES = (
    "mtk tokenize examples/waltz.mid | mtk decode -o waltz-again.mid --force",
    "mtk tokenize examples/waltz.mid | mtk decode -o waltz.wav --force",
)
MIDI_FORMATS = ("mid", "midi")
AUDIO_FORMATS = ("wav", "flac", "ogg")


def decode(
    context: typer.Context,
    inputs: InputsArgument = None,
    output: OutputOption = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="NAME", show_default=False, help="mid, wav, flac or ogg; else -o's suffix says."
        ),
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option("--scheme", "-s", metavar="NAME", show_default=False, help="miditok:FILE.json, for such streams."),
    ] = None,
    soundfont: Annotated[
        str | None,
        typer.Option(
            "--soundfont", metavar="FILE", show_default=False, help="SF2 or SF3, instead of the one that ships."
        ),
    ] = None,
    synthesizer: Annotated[
        str, typer.Option("--synthesizer", metavar="NAME", help="auto, fluidsynth or builtin.")
    ] = "auto",
    rate: Annotated[int, typer.Option("--rate", metavar="HZ", help="Sample rate of sound.")] = 44_100,
    bits: Annotated[int, typer.Option("--bits", metavar="N", help="16, 24, or 32 (floating point) of sound.")] = 16,
    jobs: JobsOption = 1,
    shard: ShardOption = None,
    force: ForceOption = False,
    skip_existing: SkipExistingOption = False,
) -> int:
    """Turn a token stream into MIDI files or sound.

    Each item becomes a file: give -o a folder or a template when there are several. Sound is played by libfluidsynth
    where it is installed, and by a builtin synthesizer elsewhere. Items that an earlier stage gave up are named, and
    the exit status is 1; a stream that breaks off or is damaged ends with 3, after the items before it are written.
    """
    environment = environment_of(context)
    kind = _format(format, output)
    suffix = f".{kind}"
    if synthesizer not in ("auto", "fluidsynth", "builtin"):
        raise UsageError(f"no such synthesizer: {synthesizer[:40]}", hint="there are auto, fluidsynth and builtin")
    plan = OutputPlan(output, suffix, force, skip_existing)
    if plan.is_standard_output:
        refuse_terminal(environment)
    elif plan.is_single_file:
        plan.check(Path(output or ""))
    use_one_thread()
    from musictool.stream.files import STREAM_SUFFIXES
    from musictool.symbolic.schemes import find_scheme

    font = Path(soundfont) if soundfont else None
    form = _Form(kind, font, cast("SynthesizerName", synthesizer), rate, bits)
    form.check()
    own = find_scheme(scheme) if scheme else None
    found = expand_inputs(inputs, STREAM_SUFFIXES, environment)
    sources = list(shard.take(found)) if shard else found
    run = _Run(environment, plan, form, own)
    if plan.is_standard_output:
        run.to_standard_output(sources)
    else:
        run.to_files(sources, jobs)
    return run.exit_status


def _format(format: str | None, output: str | None) -> str:
    """The format that is asked for, by name or by the suffix of the output."""
    suffix = PurePosixPath(output or "").suffix.lstrip(".").lower()
    is_folder = (output or "").endswith("/") or not suffix or Path(output or "").is_dir()
    name = format or ("mid" if is_folder else suffix)
    if name not in MIDI_FORMATS + AUDIO_FORMATS:
        hint = "there are mid, wav, flac and ogg: name one with --format or as a suffix"
        raise UsageError(f"no such format: {name[:40]}", hint=hint)
    return name


@dataclass(frozen=True)
class _Form:
    """What a score is turned into."""

    format: str
    soundfont: Path | None
    synthesizer: SynthesizerName
    rate_hz: int
    bits: int

    @property
    def is_audio(self) -> bool:
        return self.format in AUDIO_FORMATS

    def check(self) -> None:
        """Refuse what can't be made before any input is read."""
        if self.is_audio:
            from musictool.audio.files import sample_format
            from musictool.symbolic.synthesis import describe_synthesizer

            sample_format(self.format, self.bits)
            describe_synthesizer(self.soundfont, self.synthesizer)

    def write(self, score: Score, file: BinaryIO) -> None:
        """Write a score to a binary file."""
        if self.is_audio:
            from musictool.audio.files import write_audio
            from musictool.symbolic.synthesis import render

            blocks = render(
                score.notes,
                score.pedals,
                rate_hz=self.rate_hz,
                soundfont=self.soundfont,
                synthesizer=self.synthesizer,
            )
            write_audio(file, blocks, self.rate_hz, container=self.format, bits=self.bits)
        else:
            from musictool.symbolic.midi import write_midi

            file.write(write_midi(score))


@dataclass(frozen=True)
class _Job:
    """One file to write; goes to a worker process."""

    name: str
    score: Score
    path: Path
    form: _Form
    force: bool


def _write_file(job: _Job) -> tuple[str, MusicToolError | None]:
    """Write one file; its item's name, and what went wrong with this item alone."""
    try:
        with atomic_writer(job.path, force=job.force) as file:
            job.form.write(job.score, file)
    except InputError as error:
        if error.code == "no-space":
            raise
        return job.name, error
    except OSError as error:
        error.filename = error.filename or str(job.path)  # libsndfile's errors bear no name
        raise
    return job.name, None


@contextmanager
def _opened(source: Source, environment: Environment) -> Iterator[BinaryIO]:
    """A source's bytes."""
    if source.path is None:
        yield environment.stdin
    else:
        with open(source.path, "rb") as file:
            yield file


class _Run:
    """One run: reads items, writes files, remembers what went wrong."""

    def __init__(self, environment: Environment, plan: OutputPlan, form: _Form, own: Scheme | None) -> None:
        self._environment = environment
        self._plan = plan
        self._form = form
        self._own = own
        self._failed = 0
        self._broken: InputError | None = None

    @property
    def exit_status(self) -> int:
        """What the run amounts to.

        Raises:
            InputError: a stream broke.
        """
        if self._broken is not None:
            raise self._broken
        return ExitStatus.FINDINGS if self._failed else ExitStatus.DONE

    def to_files(self, sources: Sequence[Source], jobs: int) -> None:
        """Write a file for each item."""
        jobs_to_do = self._jobs(sources)
        with track(parallel_map(_write_file, jobs_to_do, jobs), self._environment, label="decode") as results:
            for name, error in results:
                if error is not None:
                    self._fail(name, error)

    def to_standard_output(self, sources: Sequence[Source]) -> None:
        """Write the only item; nothing is written if there are more."""
        scores = iter(self._scores(sources))
        first = next(scores, None)
        if next(scores, None) is not None:
            raise UsageError("more than one item for standard output", hint="write files with -o DIR/")
        if first is not None and self._broken is None:
            self._form.write(first[1], self._environment.stdout)

    def _jobs(self, sources: Sequence[Source]) -> Iterator[_Job]:
        for name, score in self._scores(sources):
            try:
                path = self._plan.path_for(name)
                assert path is not None
                if self._plan.is_done(path):
                    continue
                self._plan.check(path)
            except InputError as error:
                self._fail(name, error)
            else:
                yield _Job(name, score, path, self._form, self._plan.force)

    def _scores(self, sources: Sequence[Source]) -> Iterator[tuple[str, Score]]:
        """The items of every source that can be decoded, and their names."""
        for source in sources:
            try:
                if source.error is not None:
                    raise source.error
                yield from self._scores_of(source)
            except OSError as error:
                raise InputError((error.strerror or "cannot be read").lower(), context=str(source.path)) from error
            except InputError as error:
                if len(sources) > 1:
                    self._environment.item_failed(source.name, error)
                self._broken = error

    def _scores_of(self, source: Source) -> Iterator[tuple[str, Score]]:
        from musictool.stream.files import decompressing
        from musictool.stream.reader import StreamReader
        from musictool.stream.records import StreamError
        from musictool.symbolic.schemes import find_scheme, lookup_events
        from musictool.symbolic.tokenization import decode_item

        context = str(source.path or "standard input")
        with _opened(source, self._environment) as raw, decompressing(raw, context) as plain:
            for item in StreamReader(plain, partial(lookup_events, own=self._own), context):
                scheme = self._own if self._own and self._own.name == item.head.vocab else find_scheme(item.head.vocab)
                try:
                    score = decode_item(item, scheme)
                except StreamError:
                    raise
                except MusicToolError as error:
                    self._fail(item.head.item, error)
                else:
                    yield item.head.item, score

    def _fail(self, name: str, error: MusicToolError) -> None:
        self._failed += 1
        self._environment.item_failed(name, error)
