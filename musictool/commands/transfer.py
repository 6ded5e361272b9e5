"""`mtk transfer`: a token stream, or MIDI files -> a token stream in another style."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

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
    SeedOption,
    ShardOption,
    SkipExistingOption,
)
from musictool.cli.progress import AudioMeter, audio_meter
from musictool.cli.sinks import StreamSink, open_sink
from musictool.cli.streams import input_error_from
from musictool.errors import InputError, MusicToolError, UsageError

if TYPE_CHECKING:
    from musictool.stream.reader import ItemReader
    from musictool.symbolic.notes import Score

EXAMPLES = (
    "mtk transfer examples/waltz.mid --style jazz | mtk decode -o waltz-jazz.mid --force",
    "mtk transfer examples/waltz.mid --mix pop=0.6,classical=0.4 --strength 0.5 -o mixed.mtk --force",
)
ALL_INSTRUMENTS = "all"
_STYLE_HINT = "name one, as in --style jazz or --style like.mid, or several, as in --mix jazz=0.7,classical=0.3"

_Place = tuple[int | None, int | None]


def transfer(
    context: typer.Context,
    inputs: InputsArgument = None,
    output: OutputOption = None,
    style: Annotated[
        str | None,
        typer.Option(
            "--style",
            metavar="NAME|FILE",
            show_default=False,
            help="pop, classical, jazz, game, or what else the model knows; or a MIDI or stream file to be like.",
        ),
    ] = None,
    mix: Annotated[
        str | None,
        typer.Option("--mix", metavar="SHARES", show_default=False, help="Styles mixed: jazz=0.7,classical=0.3."),
    ] = None,
    strength: Annotated[
        float, typer.Option("--strength", metavar="S", help="From 0, which keeps everything, to 1.")
    ] = 0.7,
    keep: Annotated[
        str,
        typer.Option(
            "--keep",
            metavar="LIST",
            help="What stays as it is: some of chords,harmony,melody,rhythm,dynamics, or none.",
        ),
    ] = "chords",
    borrow: Annotated[
        list[str] | None,
        typer.Option(
            "--borrow",
            metavar="FACTOR=FILE",
            show_default=False,
            help="Take one of these from another piece, with a style or without; repeatable.",
        ),
    ] = None,
    instruments: Annotated[
        str | None,
        typer.Option(
            "--instruments",
            metavar="LIST",
            show_default=False,
            help="Whose notes are carried over, together, to one piano: piano (default), guitar,strings, all.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", metavar="N", help="Of denoising: more are slower and finer.")] = 25,
    guidance: Annotated[
        float, typer.Option("--guidance", metavar="G", help="How hard the style pulls; 1 is as it was learned.")
    ] = 7.0,
    eta: Annotated[float, typer.Option("--eta", metavar="E", help="Noise that each step adds anew, 0 to 1.")] = 0.0,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="T", help="How freely notes are drawn; 0 takes the likeliest.")
    ] = 0.5,
    model: ModelOption = "tatumflow",
    adapter: AdapterOption = None,
    scheme: Annotated[
        str | None,
        typer.Option(
            "--scheme",
            "-s",
            metavar="NAME",
            show_default=False,
            help="What MIDI files become: tatum (default), mt3, remi, or miditok:FILE.json, for such streams too.",
        ),
    ] = None,
    names: Annotated[bool, typer.Option("--names", help="Write tokens by name.")] = False,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    shard: ShardOption = None,
    force: ForceOption = False,
    skip_existing: SkipExistingOption = False,
) -> int:
    """Carry pieces over to another style.

    Reads a token stream, or MIDI files as mtk tokenize would write them, and writes each item in the scheme it came
    in. The piano's part is played anew; drums and other instruments stay as they are, and so do items without a piano,
    unless --instruments says otherwise. Chords are kept as the style has them; other factors to the note: a melody is
    all there, attacks fall where the rhythm has them, notes are in the harmony, each moment is as loud as it was. What
    is borrowed gives way to what is kept. With -o DIR/ or a template each item has a stream of its own. Items that an
    earlier stage gave up travel on, and the exit status is 1; a stream that breaks off ends with 3.
    """
    environment = environment_of(context)
    from musictool.commands.style_targets import find_donors, find_target
    from musictool.inference.transfer_options import Transfer, parse_donors, parse_factors, parse_mix

    if style is not None and mix is not None:
        raise UsageError("--style and --mix contradict each other", hint=_STYLE_HINT)
    if style is None and mix is None and not borrow:
        raise UsageError("no style is asked for", hint=_STYLE_HINT)
    donor_files = parse_donors(borrow or ())
    shares = None if mix is None else parse_mix(mix)
    options = Transfer(strength, parse_factors(keep), steps, eta, guidance, temperature=temperature, seed=seed)
    programs = _programs(instruments)
    from musictool.metrics.note_files import MIDI_SUFFIXES
    from musictool.stream.files import STREAM_SUFFIXES
    from musictool.symbolic.schemes import find_scheme

    own = find_scheme(scheme or "tatum")
    plan = OutputPlan(output, ".mtk", force, skip_existing)
    found = expand_inputs(inputs, (*MIDI_SUFFIXES, *STREAM_SUFFIXES), environment)
    sources = list(shard.take(found)) if shard else found
    donors, called_donors = find_donors(donor_files, own)
    # Its products are small: where other stages keep the cores busy, threads that wait for one another take far longer.
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is there to read it
    from musictool.checkpoints.store import Store
    from musictool.inference.style_transfer import StyleTransfer, load_transfer_model

    store = Store.from_environ(environment.environ).adapting(model, adapter)
    loaded = load_transfer_model(model, device, store=store)
    carrier = StyleTransfer(loaded.model, options)
    target, called = find_target(carrier, style, shares, own)
    stage = {
        "command": "transfer",
        "version": __version__,
        "model": loaded.name,
        "model_sha256": loaded.sha256,
        **called,
        **called_donors,
        "strength": strength,
        "keep": sorted(options.keep),
        "steps": steps,
        "guidance": guidance,
        "eta": eta,
        "temperature": temperature,
        "seed": seed,
        **({} if instruments is None else {"instruments": instruments}),
    }
    with open_sink(plan, environment) as sink, audio_meter(environment, label="transfer") as meter:
        carry = partial(carrier.run, target=target, donors=donors, programs=programs, advance=meter.advance)
        carrying = _Carrying(carry, meter, strength > 0, instruments)
        run = _Run(environment, carrying, stage, scheme or "tatum", sink, with_names=names)
        run.transfer(sources, is_alone=len(found) == 1)
        return run.exit_status


def _programs(instruments: str | None) -> Collection[int]:
    """The programs that `--instruments` names.

    Raises:
        UsageError: a name is not known, or there are drums among them.
    """
    from musictool.inference.piano_parts import PIANOS
    from musictool.symbolic.general_midi import parse_instruments

    if instruments is None:
        return PIANOS
    if instruments.strip().lower() == ALL_INSTRUMENTS:
        return range(128)
    programs, has_drums = parse_instruments(instruments)
    if has_drums:
        raise UsageError("drums cannot be carried over to a piano", hint="leave them out of --instruments")
    return programs


@dataclass(frozen=True)
class _Carrying:
    """What becomes of one score.

    Attributes:
        carry: makes it anew; gives it back as it is where there is nothing to carry over.
        meter: told how much there is.
        is_expected: whether anything should come of it, which is not so at strength 0.
        instruments: as they were asked for.
    """

    carry: Callable[[Score], Score]
    meter: AudioMeter
    is_expected: bool
    instruments: str | None

    def of(self, score: Score, name: str, environment: Environment) -> Score:
        """The score in the other style; if it is the very same, a warning says why."""
        self.meter.extend_total(score.notes.end_seconds)
        made = self.carry(score)
        if made is score and self.is_expected:
            has_melody = bool((~score.notes.is_drum).any())
            is_piano = self.instruments is None
            who = "piano" if is_piano else "such instrument"
            environment.warn(
                f"no {who} plays in it: it stays as it is" if has_melody else "there is no note to carry over",
                context=name,
                hint="--instruments all takes every instrument but drums" if has_melody and is_piano else "",
                code="nothing-to-transfer",
            )
        return made


class _Run:
    """One run: takes items as they come, writes them as they are done, remembers what went wrong."""

    def __init__(
        self,
        environment: Environment,
        carrying: _Carrying,
        stage: Mapping[str, Any],
        scheme_name: str,
        sink: StreamSink,
        *,
        with_names: bool,
    ) -> None:
        from musictool.symbolic.schemes import find_scheme

        self._environment = environment
        self._carrying = carrying
        self._stage = stage
        self._scheme_name = scheme_name
        self._sink = sink
        self._with_names = with_names
        self._own = find_scheme(scheme_name)
        self._failed = 0
        self._broken: InputError | None = None

    @property
    def exit_status(self) -> int:
        """What the run amounts to.

        Raises:
            InputError: a source could not be read, or a stream broke.
        """
        if self._broken is not None:
            raise self._broken
        return ExitStatus.FINDINGS if self._failed else ExitStatus.DONE

    def transfer(self, sources: Sequence[Source], *, is_alone: bool) -> None:
        """Write every item of some sources.

        Args:
            sources: files and streams, in order.
            is_alone: whether the one source is the only input, so that the run fails with it.
        """
        from musictool.stream.files import is_stream_path
        from musictool.stream.reader import StreamReader
        from musictool.stream.records import StreamError
        from musictool.symbolic.schemes import lookup_events

        are_single = all(source.path is not None and not is_stream_path(source.path) for source in sources)
        for index, source in enumerate(sources, 1):
            place = self._place(index, len(sources), are_single)
            context = str(source.path or "standard input")
            with ExitStack() as resources:
                try:
                    lines, is_stream = self._lines_of(source, context, resources)
                    for item in StreamReader(lines, partial(lookup_events, own=self._own), context):
                        error = self._write(item, place)
                        if error is None:
                            continue
                        if is_alone and not is_stream:
                            self._broken = InputError(error.message, context=context, hint=error.hint, code=error.code)
                        else:
                            self._failed += 1
                            self._environment.item_failed(item.head.item, error)
                except StreamError as error:
                    if len(sources) > 1:
                        self._environment.item_failed(source.name, error)
                    self._broken = error

    def _place(self, index: int, count: int, are_single: bool) -> _Place | None:
        """What to say of the place of a source's items among all; None for what their stream says."""
        if not self._sink.is_one_stream:
            return 1, 1
        if are_single:
            return index, count
        return None if count == 1 else (None, None)

    def _lines_of(self, source: Source, context: str, resources: ExitStack) -> tuple[BinaryIO, bool]:
        """A source as a stream, and whether it is one itself; a MIDI file is what `mtk tokenize` makes of it."""
        from musictool.stream.files import decompressing
        from musictool.symbolic.tokenization import STREAM_START, Tokenization, failed_items, tokenize_midi

        options = Tokenization(self._scheme_name)
        try:
            if source.error is not None:
                raise source.error
            raw = self._environment.stdin
            if source.path is not None:
                raw = resources.enter_context(source.path.open("rb"))
        except (OSError, InputError) as error:
            reason = error if isinstance(error, InputError) else input_error_from(error)
            made = failed_items(source.name, options, reason)
        else:
            plain = resources.enter_context(decompressing(raw, context))
            start = plain.peek(1)[:1]
            if start == STREAM_START or (not start and source.path is None):
                return plain, True
            made = tokenize_midi(source.name, plain.read(), options)
        return io.BytesIO(b"".join(item.lines() for item in made)), False

    def _write(self, item: ItemReader, place: _Place | None) -> MusicToolError | None:
        """Write one item; what went wrong with it alone.

        Raises:
            StreamError: its stream broke in it.
        """
        import numpy as np

        from musictool.stream.records import ItemFailed, StreamError
        from musictool.symbolic.schemes import find_scheme
        from musictool.symbolic.score_meta import assemble

        name, vocab = item.head.item, item.head.vocab
        head = replace(item.head, made=(*item.head.made, self._stage))
        if place is not None:
            head = replace(head, number=place[0], of=place[1])
        try:
            if self._sink.is_done(name):
                return None
            scheme = self._own if self._own.name == vocab else find_scheme(vocab)
            names = scheme.vocabulary if self._with_names else None
            with self._sink.writer(name, names) as writer, writer.item(head) as written:
                ids = np.concatenate([np.zeros(0, np.int32), *item.chunks()])
                score = assemble(scheme.decode([ids]), item.head.meta)
                made = self._carrying.of(score, name, self._environment)
                written.write(ids if made is score else scheme.encode(made))
                assert item.closing is not None
                written.source_sha = item.closing.sha
        except (InputError, ItemFailed) as error:
            if isinstance(error, StreamError) or error.code == "no-space":
                raise
            return error
        return None
