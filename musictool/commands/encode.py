"""`mtk encode`: sound -> a token stream of a codec's codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, BinaryIO

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
    JobsOption,
    LatencyOption,
    ModelOption,
    OutputOption,
    Precision,
    PrecisionOption,
    SampleFormat,
    SampleFormatOption,
    ShardOption,
    SkipExistingOption,
)
from musictool.cli.parallel import parallel_map
from musictool.cli.progress import AudioMeter, audio_meter
from musictool.commands.code_sinks import CodeSink, open_code_sink
from musictool.commands.codec_processes import device_for, let_threads_sleep, use_one_core
from musictool.errors import InputError, UsageError

if TYPE_CHECKING:
    from musictool.audio.raw import RawFormat
    from musictool.audio.reading import AudioReader
    from musictool.inference.codec_choice import Codecs
    from musictool.inference.codec_streaming import CodecModel
    from musictool.inference.coded_sound import EncodedSound, WholeCodes
    from musictool.stream.records import Head

EXAMPLES = (
    "mtk encode examples/waltz.ogg | mtk decode -o waltz-coded.wav --force",
    "mtk encode examples/ --bandwidth 3 -o codes.mtk.zst --force",
)


def encode(
    context: typer.Context,
    inputs: InputsArgument = None,
    output: OutputOption = None,
    model: ModelOption = "codec-24khz",
    adapter: AdapterOption = None,
    bandwidth: Annotated[
        float | None,
        typer.Option("--bandwidth", metavar="KBPS", show_default=False, help="Bit rate, of those the codec does."),
    ] = None,
    codebooks: Annotated[
        int | None,
        typer.Option(
            "--codebooks", metavar="K", show_default=False, help="The same, counted in codebooks; by default all."
        ),
    ] = None,
    latency: LatencyOption = None,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="The input has no header: it is as --rate, --channels and --sample-format say. If it has one all the "
            "same, that of WAV, as arecord writes it, that one is believed.",
        ),
    ] = False,
    rate: Annotated[
        int | None, typer.Option("--rate", metavar="HZ", show_default=False, help="Of --raw; by default the codec's.")
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option("--channels", metavar="C", show_default=False, help="Of --raw; by default the codec's."),
    ] = None,
    sample_format: SampleFormatOption = SampleFormat.S16LE,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.FP32,
    jobs: JobsOption = 1,
    shard: ShardOption = None,
    force: ForceOption = False,
    skip_existing: SkipExistingOption = False,
) -> int:
    """Turn sound into a token stream of a codec's codes.

    Reads WAV, FLAC, OGG, MP3 and, where ffmpeg is installed, whatever it reads, of any rate and length. Where the codec
    has another number of channels, each of its own gets the mean of them all. Codes leave while sound comes in, in
    bounded memory; mtk decode makes sound of them, of the same rate and length to the sample.

    Each file is an item; with -o DIR/ or a template each has a stream of its own. -o codes.parquet writes a corpus of
    one row an item, and -o '{stem}.ecdc', with a codec of the encodec package, files for that one. An input that cannot
    be read becomes a failed item, and the exit status is 1.
    """
    environment = environment_of(context)
    if bandwidth is not None and codebooks is not None:
        raise UsageError("--bandwidth and --codebooks contradict each other", hint="give one of them")
    if not raw and (rate, channels) != (None, None):
        raise UsageError("--rate and --channels say how raw sound is", hint="add --raw, or leave them out")
    plan = OutputPlan(output, ".mtk", force, skip_existing)
    from musictool.audio.checks import AUDIO_SUFFIXES

    found = expand_inputs(inputs, AUDIO_SUFFIXES, environment)
    sources = list(shard.take(found)) if shard else found
    let_threads_sleep()
    from musictool.audio.raw import RawFormat
    from musictool.checkpoints.store import Store
    from musictool.inference.codec_choice import Codecs, find_levels

    store = Store.from_environ(environment.environ).adapting(model, adapter)
    codecs = Codecs(store, model, device_for(device, jobs), precision.value)
    codec = codecs.load(model)
    config = codec.model.config
    layout = None
    if raw:
        layout = RawFormat(
            config.rate_hz if rate is None else rate,
            config.channels if channels is None else channels,
            sample_format.value,
        )
    encoding = _Encoding(codecs, model, find_levels(config, codec.name, bandwidth, codebooks), latency, layout)
    with open_code_sink(plan, environment, config, encoding.levels) as sink:
        run = _Run(environment, encoding, sink)
        run.encode(sources, jobs, is_alone=len(found) == 1)
    return ExitStatus.FINDINGS if run.has_failed else ExitStatus.DONE


@dataclass(frozen=True)
class _Encoding:
    """How every sound is encoded; goes to worker processes, each of which loads the codec once.

    Attributes:
        codecs: where the codec is found.
        model: its name or path.
        levels: codebooks to use.
        latency_seconds: how much sound may be waited for; None for what is fastest.
        layout: of raw sound; None for sound that says itself how it is.
    """

    codecs: Codecs
    model: str
    levels: int
    latency_seconds: float | None
    layout: RawFormat | None

    @property
    def codec(self) -> CodecModel:
        """The codec, loaded."""
        return self.codecs.load(self.model)

    def head(self, name: str, number: int, of: int) -> Head:
        """The head of an item, but for what the sound says."""
        from musictool.stream.records import Head

        codec = self.codec
        stage = {
            "command": "encode",
            "version": __version__,
            "model": codec.name,
            "model_sha256": codec.sha256,
            **codec.adapter,
            "codebooks": self.levels,
            "bandwidth_kbps": round(self.levels * codec.model.config.kbps_of_codebook, 3),
            "precision": self.codecs.precision,
        }
        return Head(name, "codes", codec.name, codec.sha256, made=(stage,), number=number, of=of)

    def open(self, source: Source, stdin: BinaryIO | None) -> AudioReader:
        """Begin to read a sound.

        Raises:
            InputError: it can't be read.
        """
        from musictool.audio.reading import open_audio

        if source.error is not None:
            raise source.error
        if source.path is not None:
            return open_audio(source.path, str(source.path), self.layout)
        assert stdin is not None
        return open_audio(stdin, "standard input", self.layout)

    def begin(
        self, head: Head, reader: AudioReader, advance: Callable[[float], None] = lambda seconds: None
    ) -> tuple[Head, EncodedSound]:
        """The whole head of an item, and its codes, which are still to be made."""
        from musictool.inference.coded_sound import EncodedSound, describe_codes

        codec = self.codec
        meta = describe_codes(codec.model.config, self.levels, reader)
        sound = EncodedSound(reader, codec, self.levels, self.latency_seconds, advance)
        return replace(head, meta=meta), sound


@dataclass(frozen=True)
class _Task:
    """A sound to encode in a process of its own."""

    source: Source
    head: Head
    encoding: _Encoding


@dataclass(frozen=True)
class _Made:
    """What came of a task: all codes, or why there are none."""

    head: Head
    sound: WholeCodes | None = None
    is_truncated: bool = False
    error: InputError | None = None


def _make(task: _Task) -> _Made:
    """Encode one sound in a process beside others."""
    from musictool.inference.coded_sound import WholeCodes

    use_one_core()
    try:
        with task.encoding.open(task.source, None) as reader:
            head, sound = task.encoding.begin(task.head, reader)
            return _Made(head, WholeCodes.of(sound), sound.is_truncated)
    except InputError as error:
        return _Made(task.head, error=error)


class _Run:
    """One run: encodes sounds, writes their items, remembers whether any failed."""

    def __init__(self, environment: Environment, encoding: _Encoding, sink: CodeSink) -> None:
        self.has_failed = False
        self._environment = environment
        self._encoding = encoding
        self._sink = sink

    def encode(self, sources: Sequence[Source], jobs: int, *, is_alone: bool) -> None:
        """Write an item for each source.

        Raises:
            InputError: the only one cannot be read (its failed item has been written), or there is no room.
        """
        wanted = [source for source in sources if not self._sink.is_done(source.name)]
        tasks = [self._task(source, number, len(wanted)) for number, source in enumerate(wanted, 1)]
        is_shared = jobs != 1 and len(tasks) > 1 and all(source.path is not None for source in wanted)
        made = parallel_map(_make, tasks, jobs) if is_shared else None
        with audio_meter(self._environment, label="encode") as meter:
            for task in tasks:
                try:
                    is_truncated = self._put(next(made), meter) if made is not None else self._write(task, meter)
                except InputError as error:
                    if is_alone or error.code == "no-space":
                        raise
                    self.has_failed = True
                    self._environment.item_failed(task.source.name, error)
                else:
                    if is_truncated:
                        where = str(task.source.path or "standard input")
                        self._environment.warn("the sound breaks off", context=where, code="truncated-audio")

    def _task(self, source: Source, number: int, of: int) -> _Task:
        number, of = (number, of) if self._sink.is_one_stream else (1, 1)
        return _Task(source, self._encoding.head(source.name, number, of), self._encoding)

    def _write(self, task: _Task, meter: AudioMeter) -> bool:
        """Encode a sound here and write its item meanwhile; whether the sound breaks off."""
        try:
            reader = self._encoding.open(task.source, self._environment.stdin)
        except InputError as error:
            self._sink.fail(task.head, error)
            raise
        with reader:
            if reader.duration_seconds is not None:
                meter.extend_total(reader.duration_seconds)
            head, sound = self._encoding.begin(task.head, reader, meter.advance)
            self._sink.write(head, sound)
        return sound.is_truncated

    def _put(self, made: _Made, meter: AudioMeter) -> bool:
        """Write the item of what another process made; whether the sound breaks off."""
        if made.sound is None:
            assert made.error is not None
            self._sink.fail(made.head, made.error)
            raise made.error
        self._sink.write(made.head, made.sound)
        meter.advance((made.sound.source_samples or 0) / made.head.meta["source"]["rate_hz"])
        return made.is_truncated
