"""`mtk decode`: a token stream -> MIDI files or sound."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, cast

import typer

from musictool.cli.environment import environment_of
from musictool.cli.files import OutputPlan, expand_inputs, refuse_terminal
from musictool.cli.options import (
    AdapterOption,
    DeviceOption,
    ForceOption,
    InputsArgument,
    JobsOption,
    LatencyOption,
    OutputOption,
    Precision,
    PrecisionOption,
    SampleFormat,
    SampleFormatOption,
    ShardOption,
    SkipExistingOption,
)
from musictool.cli.parallel import use_one_thread
from musictool.commands.code_sinks import ECDC_SUFFIX
from musictool.commands.codec_processes import device_for, let_threads_sleep
from musictool.commands.decode_forms import (
    AUDIO_FORMATS,
    MIDI_FORMATS,
    NOTES_RATE_HZ,
    RAW,
    CodesForm,
    ScoreForm,
    SoundFormat,
)
from musictool.commands.decode_run import DecodeRun, Forms, Plans
from musictool.errors import UsageError

if TYPE_CHECKING:
    from musictool.symbolic.synthesis import SynthesizerName

EXAMPLES = (
    "mtk tokenize examples/waltz.mid | mtk decode -o waltz-again.mid --force",
    "mtk tokenize examples/waltz.mid | mtk decode -o waltz.wav --force",
)


def decode(
    context: typer.Context,
    inputs: InputsArgument = None,
    output: OutputOption = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            show_default=False,
            help="mid, wav, flac, ogg or mp3; else -o's suffix says, else notes become mid and codes wav.",
        ),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Sound without a header, written as it is made: for aplay and its like.")
    ] = False,
    sample_format: SampleFormatOption = SampleFormat.S16LE,
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
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME|PATH",
            show_default=False,
            help="The codec of codes; found by itself if it is here.",
        ),
    ] = None,
    adapter: AdapterOption = None,
    codebooks: Annotated[
        int | None,
        typer.Option(
            "--codebooks", min=1, metavar="K", show_default=False, help="Of codes, use the first K: coarser sound."
        ),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(
            "--rate",
            metavar="HZ",
            show_default=False,
            help="Sample rate of sound; by default 44100 for notes, and for codes that of the sound they were made of.",
        ),
    ] = None,
    bits: Annotated[int, typer.Option("--bits", metavar="N", help="16, 24, or 32 (floating point) of sound.")] = 16,
    latency: LatencyOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.FP32,
    jobs: JobsOption = 1,
    shard: ShardOption = None,
    force: ForceOption = False,
    skip_existing: SkipExistingOption = False,
) -> int:
    """Turn a token stream into MIDI files or sound.

    Each item becomes a file: give -o a folder or a template when there are several. Notes are played by libfluidsynth
    where it is installed, and by a builtin synthesizer elsewhere. Codes, and .ecdc files of the encodec package, become
    the sound they stand for, as long to the sample as it was; it is written while codes come in. Items that an earlier
    stage gave up are named, and the exit status is 1; a stream that breaks off or is damaged ends with 3, after the
    items before it are written.
    """
    environment = environment_of(context)
    name = _format(format, output, is_raw=raw)
    if synthesizer not in ("auto", "fluidsynth", "builtin"):
        raise UsageError(f"no such synthesizer: {synthesizer[:40]}", hint="there are auto, fluidsynth and builtin")
    plan = OutputPlan(output, f".{name or MIDI_FORMATS[0]}", force, skip_existing)
    plans = Plans(plan, plan if name else OutputPlan(output, f".{AUDIO_FORMATS[0]}", force, skip_existing))
    if plan.is_standard_output:
        refuse_terminal(environment)
    elif plan.is_single_file:
        plan.check(Path(output or ""))
    use_one_thread()
    from musictool.stream.files import STREAM_SUFFIXES
    from musictool.symbolic.schemes import find_scheme

    is_midi = name in MIDI_FORMATS
    sound = SoundFormat(name if name and not is_midi else AUDIO_FORMATS[0], bits, sample_format.value)
    font = Path(soundfont) if soundfont else None
    notes = ScoreForm(
        None if is_midi or name is None else sound,
        font,
        cast("SynthesizerName", synthesizer),
        NOTES_RATE_HZ if rate is None else rate,
    )
    notes.check()

    def codes() -> CodesForm:
        """The form of codes, for which torch is imported: not before there are any."""
        let_threads_sleep()
        from musictool.checkpoints.store import Store
        from musictool.inference.codec_choice import Codecs

        store, name = Store.from_environ(environment.environ), model
        if adapter is not None:
            name = model or _base_of(adapter)
            store = store.adapting(name, adapter)
        codecs = Codecs(store, name, device_for(device, jobs), precision.value)
        form = CodesForm(None if is_midi else sound, codecs, rate, codebooks, latency)
        form.check()
        return form

    forms = Forms(notes, codes)
    if (model, adapter, codebooks, latency) != (None, None, None, None):
        forms.prepare_codes()
    own = find_scheme(scheme) if scheme else None
    found = expand_inputs(inputs, (*STREAM_SUFFIXES, ECDC_SUFFIX), environment)
    sources = list(shard.take(found)) if shard else found
    run = DecodeRun(environment, plans, forms, own)
    if plan.is_standard_output:
        run.to_standard_output(sources, is_live=name == RAW)
    else:
        run.to_files(sources, jobs)
    return run.exit_status


def _base_of(adapter: str) -> str:
    """The name of the codec that an adapter is for.

    Raises:
        InputError: there is no adapter, or it is damaged.
        UsageError: it does not say.
    """
    from musictool.checkpoints.adapters import read_adapter

    base = read_adapter(Path(adapter).expanduser()).base
    if not base:
        raise UsageError("the adapter does not say which codec it is for", context=adapter, hint="name it with --model")
    return base


def _format(format: str | None, output: str | None, *, is_raw: bool) -> str | None:
    """The format that is asked for, by name or by the suffix of the output; None where an item's kind decides."""
    suffix = PurePosixPath(output or "").suffix.lstrip(".").lower()
    is_folder = (output or "").endswith("/") or not suffix or Path(output or "").is_dir()
    name = format or (None if is_folder else suffix)
    if is_raw:
        if name in MIDI_FORMATS + AUDIO_FORMATS:
            raise UsageError(f"--raw writes no {name}", hint="leave --raw out, or name the file otherwise")
        return RAW
    if name is not None and name not in MIDI_FORMATS + AUDIO_FORMATS:
        hint = "there are mid, wav, flac, ogg and mp3: name one with --format or as a suffix; or ask for --raw"
        raise UsageError(f"no such format: {name[:40]}", hint=hint)
    return name
