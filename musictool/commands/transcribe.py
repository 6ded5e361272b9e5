"""`mtk transcribe`: sound -> a token stream of the notes in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musictool import __version__
from musictool.cli.environment import Environment, environment_of
from musictool.cli.exit_status import ExitStatus
from musictool.cli.files import OutputPlan, Source, expand_inputs
from musictool.cli.options import (
    AdapterOption,
    DeviceOption,
    ForceOption,
    InputsArgument,
    ModelOption,
    OutputOption,
    Precision,
    PrecisionOption,
    ShardOption,
    SkipExistingOption,
)
from musictool.cli.progress import AudioMeter, audio_meter
from musictool.cli.sinks import StreamSink, open_sink
from musictool.errors import InputError

if TYPE_CHECKING:
    from musictool.audio.reading import AudioReader
    from musictool.inference.transcription import Piece, Transcriber, Transcription
    from musictool.stream.writer import StreamWriter
    from musictool.symbolic.schemes import Scheme

EXAMPLES = (
    "mtk transcribe examples/waltz.ogg | mtk decode -o waltz-heard.mid --force",
    "mtk transcribe examples/ --instruments violin --scheme tatum -o heard/ --force",
)


def transcribe(
    context: typer.Context,
    inputs: InputsArgument = None,
    output: OutputOption = None,
    model: ModelOption = "note-tagger",
    adapter: AdapterOption = None,
    scheme: Annotated[
        str | None,
        typer.Option(
            "--scheme",
            "-s",
            metavar="NAME",
            show_default=False,
            help="mt3, tatum, remi or miditok:FILE.json; by default mt3 for the model of that name, else tatum.",
        ),
    ] = None,
    instruments: Annotated[
        str | None,
        typer.Option(
            "--instruments",
            metavar="LIST",
            show_default=False,
            help="The only instruments there are: piano,bass,drums, violin, or programs such as 33.",
        ),
    ] = None,
    steady: Annotated[
        bool,
        typer.Option(
            "--steady/--no-steady",
            help="With mt3: read everything twice, in segments half a segment apart, and let the readings agree: notes "
            "and instruments that hold across segments, in twice the time.",
        ),
    ] = False,
    names: Annotated[bool, typer.Option("--names", help="Write tokens by name.")] = False,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            min=1,
            metavar="N",
            show_default=False,
            help="Stretches of sound side by side: more may be faster, fewer take less memory, 1 answers soonest.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.FP32,
    shard: ShardOption = None,
    force: ForceOption = False,
    skip_existing: SkipExistingOption = False,
) -> int:
    """Turn sound into a token stream of the notes in it.

    Reads WAV, FLAC, OGG, MP3 and, where ffmpeg is installed, whatever it reads. The model that ships, note-tagger,
    hears the notes of any pitched instrument, but not which it is: all are a piano's, or those of the one that
    --instruments names. --model mt3 tells instruments apart and hears drums; mtk models pull mt3 fetches it, once.

    Each file is an item; with -o DIR/ or a template each has a stream of its own. Tokens come when the sound has ended;
    those of mt3 in its own scheme, and without --steady, while it is read. An input that cannot be read becomes a
    failed item, and the exit status is 1.
    """
    environment = environment_of(context)
    from musictool.symbolic.general_midi import parse_instruments
    from musictool.symbolic.schemes import find_scheme

    wanted = find_scheme(scheme) if scheme is not None else None
    programs, has_drums = parse_instruments(instruments) if instruments is not None else (None, True)
    plan = OutputPlan(output, ".mtk", force, skip_existing)
    from musictool.audio.checks import AUDIO_SUFFIXES

    found = expand_inputs(inputs, AUDIO_SUFFIXES, environment)
    sources = list(shard.take(found)) if shard else found
    from musictool.checkpoints.store import Store
    from musictool.inference.transcription import Transcription, open_transcriber

    options = Transcription(model, device, precision.value, batch, programs, has_drums, steady)
    transcriber = open_transcriber(options, Store.from_environ(environment.environ).adapting(model, adapter))
    chosen = wanted or find_scheme(transcriber.scheme_name)
    stage = _stage(transcriber, options, chosen, instruments)
    with open_sink(plan, environment) as sink:
        run = _Run(environment, transcriber, chosen, stage, sink, with_names=names)
        run.transcribe(sources, is_alone=len(found) == 1)
    return ExitStatus.FINDINGS if run.has_failed else ExitStatus.DONE


def _stage(transcriber: Transcriber, options: Transcription, scheme: Scheme, instruments: str | None) -> dict[str, Any]:
    """This stage's entry in an item's `made`."""
    stage: dict[str, Any] = {
        "command": "transcribe",
        "version": __version__,
        "scheme": scheme.name,
        "model": transcriber.model_name,
        "model_sha256": transcriber.model_sha256,
        "precision": options.precision,
    }
    if options.is_steady:
        stage["steady"] = True
    if instruments is not None:
        stage["instruments"] = instruments
    return stage


class _Run:
    """One run: takes pieces as they are transcribed, writes their items, remembers whether any failed."""

    def __init__(
        self,
        environment: Environment,
        transcriber: Transcriber,
        scheme: Scheme,
        stage: Mapping[str, Any],
        sink: StreamSink,
        *,
        with_names: bool,
    ) -> None:
        self.has_failed = False
        self._environment = environment
        self._transcriber = transcriber
        self._scheme = scheme
        self._stage = stage
        self._sink = sink
        self._names = scheme.vocabulary if with_names else None

    def transcribe(self, sources: Sequence[Source], *, is_alone: bool) -> None:
        """Write an item for each source.

        Raises:
            InputError: the only one cannot be read; its failed item has been written.
        """
        from musictool.inference.transcription import Sound

        wanted = [source for source in sources if not self._sink.is_done(source.name)]
        sounds = [Sound(source.name, partial(self._open, source)) for source in wanted]
        with (
            audio_meter(self._environment, label="transcribe") as meter,
            closing(self._transcriber.run(sounds, meter.advance)) as pieces,
        ):
            for number, (source, piece) in enumerate(zip(wanted, pieces, strict=True), 1):
                try:
                    with self._sink.writer(piece.name, self._names) as writer:
                        self._write(piece, writer, number, len(wanted), meter)
                except InputError as error:
                    if is_alone or error.code == "no-space":
                        raise
                    self.has_failed = True
                    self._environment.item_failed(piece.name, error)
                if piece.is_truncated:
                    where = str(source.path or "standard input")
                    self._environment.warn("the sound breaks off", context=where, code="truncated-audio")

    def _open(self, source: Source) -> AudioReader:
        from musictool.audio.reading import open_audio

        if source.error is not None:
            raise source.error
        if source.path is None:
            return open_audio(self._environment.stdin, "standard input")
        return open_audio(source.path, str(source.path))

    def _write(self, piece: Piece, writer: StreamWriter, number: int, of: int, meter: AudioMeter) -> None:
        from musictool.stream.records import Failure, Head

        number, of = (number, of) if self._sink.is_one_stream else (1, 1)
        vocabulary = self._scheme.vocabulary
        head = Head(
            piece.name, "events", self._scheme.name, vocabulary.fingerprint, made=(self._stage,), number=number, of=of
        )
        try:
            piece.wait()
        except InputError as error:
            writer.failed(head, Failure.of(error))
            raise
        meta: dict[str, Any] = {"source": {"rate_hz": piece.rate_hz, "channels": piece.channels}}
        if piece.duration_seconds is not None:
            meta["duration_seconds"] = piece.duration_seconds
            meter.extend_total(piece.duration_seconds)
        with writer.item(replace(head, meta=meta)) as item:
            for ids in piece.ids(self._scheme):
                item.write(ids)
            item.source_sha = piece.source_sha256
