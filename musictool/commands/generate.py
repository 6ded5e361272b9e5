"""`mtk generate`: words, a style, a melody, a backing track, or the beginning of a piece -> a token stream."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from musictool.cli.environment import Environment, environment_of
from musictool.cli.files import OutputPlan, Source, expand_inputs
from musictool.cli.options import (
    AdapterOption,
    DeviceOption,
    ForceOption,
    ModelOption,
    OutputOption,
    Precision,
    PrecisionOption,
    SeedOption,
    SkipExistingOption,
)
from musictool.cli.progress import audio_meter
from musictool.cli.sinks import open_sink
from musictool.errors import InputError, UsageError

if TYPE_CHECKING:
    from musictool.inference.generation_options import Prompt, Request

EXAMPLES = (
    "mtk generate --style jazz --bars 16 | mtk decode -o jazz.mid --force",
    "mtk generate -m saxgpt-weimar --backing examples/waltz.ogg --duration 8 | mtk decode -o sax.flac --force",
)
BATCH = 4


def generate(
    context: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            show_default=False,
            help="What to go on from: token streams, or MIDI for a model of notes; - is standard input, and so is "
            "nothing at all where nothing else is asked for.",
        ),
    ] = None,
    output: OutputOption = None,
    model: ModelOption = "symbolic-generator",
    adapter: AdapterOption = None,
    text: Annotated[
        str | None,
        typer.Option("--text", metavar="TEXT", show_default=False, help="What it is to be like, in words."),
    ] = None,
    style: Annotated[
        str | None,
        typer.Option(
            "--style",
            metavar="STYLE|FILE",
            show_default=False,
            help="A style that the model knows, or, of personaljazz, words or a sound file to be like.",
        ),
    ] = None,
    melody: Annotated[
        str | None,
        typer.Option("--melody", metavar="FILE", show_default=False, help="Sound whose melody is to be followed."),
    ] = None,
    backing: Annotated[
        str | None,
        typer.Option("--backing", metavar="FILE", show_default=False, help="Sound to play over, as long as it lasts."),
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", show_default=False, help="Such as C, 'a minor' or F#m.")
    ] = None,
    tempo: Annotated[
        float | None, typer.Option("--tempo", metavar="BPM", show_default=False, help="Quarter notes a minute.")
    ] = None,
    chords: Annotated[
        str | None,
        typer.Option(
            "--chords",
            metavar="CHORDS|FILE",
            show_default=False,
            help="Such as 'C Am F G', a bar each; or a text file.",
        ),
    ] = None,
    bars: Annotated[
        int | None, typer.Option("--bars", metavar="N", show_default=False, help="How much to make, of notes.")
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option("--duration", metavar="SECONDS", show_default=False, help="How much to make, in time."),
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, metavar="N", help="Pieces of each request.")] = 1,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            show_default=False,
            help="A request a line: words, or JSON with these options as keys, and name; - is standard input.",
        ),
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Ask for words, make a piece, and ask again, up to an empty line.")
    ] = False,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", metavar="T", show_default=False, help="0 takes the likeliest; higher is freer."),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option("--top-k", metavar="K", show_default=False, help="Draw from the K likeliest alone; 0 is all."),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", metavar="P", show_default=False, help="Draw from the likeliest with this share alone."),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            "--guidance",
            metavar="G",
            show_default=False,
            help="How hard what is asked for pulls; 1 is as it was learned, in half the time.",
        ),
    ] = None,
    batch: Annotated[
        int,
        typer.Option("--batch", min=1, metavar="N", help="Pieces side by side: fewer take less memory."),
    ] = BATCH,
    names: Annotated[bool, typer.Option("--names", help="Write tokens of notes by name.")] = False,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.FP32,
    force: ForceOption = False,
    skip_existing: SkipExistingOption = False,
) -> int:
    """Make music.

    symbolic-generator, which ships, makes notes, for mtk decode to write as MIDI or play; musicgen, personaljazz and
    saxgpt make codes of their codec, and those leave while more are made. saxgpt-weimar ships as well, and plays a
    saxophone over a backing track. How ids are drawn and how much is made is the model's choice where it is not said.
    A piece depends on the seed and on its number alone, not on those beside it.

    What there is to go on from stands at the beginning of what is made. With -o DIR/ or a template each piece has a
    stream of its own. A request that cannot be met becomes a failed item, and the exit status is 1.
    """
    environment = environment_of(context)
    from musictool.inference.generation_options import Drawing, Request

    request = Request(text, style, melody, backing, key, tempo, chords, bars, duration)
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "guidance": guidance}
    Drawing().with_given(**given)
    _check(request, inputs, prompts, interactive)
    plan = OutputPlan(output, ".mtk", force, skip_existing)
    lines = None if prompts is None else _lines(prompts, environment)
    sources = _sources(request, inputs, prompts, interactive, environment)

    from musictool.checkpoints.store import Store
    from musictool.commands import generate_wishes as wishes
    from musictool.commands.generate_run import GenerateRun
    from musictool.inference.generation import GUIDANCE, Setup, check_request, check_taken, open_generator

    store = Store.from_environ(environment.environ).adapting(model, adapter)
    generator = open_generator(model, Setup(store, device, precision.value, environment.warn))
    check_request(generator, request)
    if guidance is not None:
        check_taken(generator, GUIDANCE)
    drawing = generator.drawing.with_given(seed=seed, **given)
    with open_sink(plan, environment) as sink, audio_meter(environment, label="generate") as meter:
        run = GenerateRun(environment, meter, generator, drawing, sink, precision.value, with_names=names)
        if interactive:
            return run.make(wishes.typed(environment, request, generator), count=count, batch=batch, is_live=True)
        asked: Iterable[wishes.Wish] = [wishes.Wish(request, 1, 1)]
        if lines is not None:
            asked = wishes.written(lines, request, generator)
        elif sources:
            asked = wishes.begun(sources, request, generator, environment, may_be_none=not inputs)
        return run.make(asked, count=count, batch=batch)


def _check(request: Request, inputs: list[str] | None, prompts: str | None, interactive: bool) -> None:
    """Refuse what is asked for in several ways."""
    ways = {"--prompts": prompts is not None, "--interactive": interactive, "INPUT": bool(inputs)}
    asked = [way for way, is_asked in ways.items() if is_asked]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)} contradict each other", hint="give one of them")
    if (prompts is not None or interactive) and request.text is not None:
        raise UsageError(f"--text and {asked[0]} contradict each other", hint="give one of them")


def _lines(path: str, environment: Environment) -> list[Prompt]:
    """The requests in a file.

    Raises:
        InputError: there is none, or a line makes no sense.
    """
    from musictool.inference.generation_options import LINE_CHARACTERS_MAX, read_prompts

    context = "standard input" if path == "-" else path
    with nullcontext(environment.stdin) if path == "-" else open(path, "rb") as file:
        found = list(read_prompts(iter(partial(file.readline, LINE_CHARACTERS_MAX + 1), b""), context))
    if not found:
        raise InputError("there is no request in it", context=context)
    return found


def _sources(
    request: Request, inputs: list[str] | None, prompts: str | None, interactive: bool, environment: Environment
) -> list[Source]:
    """What there is to go on from: what is named, or, where nothing is asked for, what comes in."""
    from musictool.inference.generation_options import LENGTHS

    is_asked = prompts is not None or interactive or not request.asked().keys() <= set(LENGTHS)
    if not inputs and (is_asked or environment.is_stdin_terminal):
        return []
    from musictool.metrics.note_files import MIDI_SUFFIXES
    from musictool.stream.files import STREAM_SUFFIXES

    return expand_inputs(inputs, (*MIDI_SUFFIXES, *STREAM_SUFFIXES), environment)
