"""`mtk eval tokens`: how well a model predicts pieces, what becomes of them when it goes on, and what they quote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from musictool.cli.environment import Environment, environment_of
from musictool.cli.exit_status import ExitStatus
from musictool.cli.options import (
    AdapterOption,
    DeviceOption,
    ForceOption,
    InputsArgument,
    Precision,
    PrecisionOption,
    SeedOption,
)
from musictool.cli.progress import track
from musictool.commands.eval_items import Items, tracked
from musictool.commands.eval_tokens_items import TokenItems, find_tokens, pieces_of
from musictool.commands.eval_tokens_report import Report, Targets
from musictool.errors import MusicToolError, UsageError

if TYPE_CHECKING:
    from musictool.inference.code_predictor import CodePredictor
    from musictool.inference.event_predictor import EventPredictor
    from musictool.inference.model_files import LoadedModel
    from musictool.inference.token_judging import Judge
    from musictool.inference.token_pieces import TokenPiece
    from musictool.inference.token_quotes import Quotes

EXAMPLES = (
    "mtk tokenize examples/waltz.mid | mtk eval tokens --model symbolic-generator",
    "mtk tokenize examples/waltz.mid | mtk eval tokens -m symbolic-generator --continue 64 --json",
)
TEMPERATURES = "0.5,1,1.5"
TEMPERATURE_RANGE = (0.01, 100.0)


def eval_tokens(
    context: typer.Context,
    inputs: InputsArgument = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME|PATH", show_default=False, help="Whose predictions are judged."),
    ] = None,
    adapter: AdapterOption = None,
    temperatures: Annotated[
        str, typer.Option("--temperatures", metavar="LIST", help="Besides 1: of the cross-entropy, and of --continue.")
    ] = TEMPERATURES,
    going_on: Annotated[
        int,
        typer.Option(
            "--continue",
            min=0,
            metavar="N",
            help="Go on from the beginning of each piece, by so many frames of codes or tokens of notes.",
        ),
    ] = 0,
    prompt_tokens: Annotated[
        int | None,
        typer.Option(
            "--prompt-tokens",
            min=1,
            metavar="N",
            show_default=False,
            help="How much of each piece it goes on from; a quarter of the model's context by default.",
        ),
    ] = None,
    prompt_seconds: Annotated[
        float | None,
        typer.Option(
            "--prompt-seconds", min=0, metavar="SECONDS", show_default=False, help="The same in seconds, of codes."
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            "--text",
            metavar="TEXT",
            show_default=False,
            help="Tell the model this of every piece; by default what its meta has as text. '' for nothing.",
        ),
    ] = None,
    style: Annotated[
        str | None,
        typer.Option("--style", metavar="NAME", show_default=False, help="Tell a composer this style of every piece."),
    ] = None,
    backing: Annotated[
        str | None,
        typer.Option(
            "--backing",
            metavar="PATH",
            show_default=False,
            help="Codes of what each piece is played over: a stream or corpus with the same names in the same order.",
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="PATH",
            show_default=False,
            help="Find the longest run that each piece has in common with a stream or corpus; may be repeated.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", show_default=False, help="Only the first N pieces.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, metavar="N", help="Pieces side by side.")] = 4,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.FP32,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with every figure, no table.")] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="PATH", show_default=False, help="Write that object to a file, beside the table."
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option("--plot", metavar="PATH", show_default=False, help="Draw the figures: a .png, .pdf or .svg file."),
    ] = None,
    conditions: Annotated[
        list[str] | None,
        typer.Option(
            "--assert",
            metavar="CONDITION",
            show_default=False,
            help="End with status 1 unless all pieces together fulfil it, as in 'perplexity<=40'; may be repeated.",
        ),
    ] = None,
    force: ForceOption = False,
) -> int:
    """Measure how well a model predicts the tokens of pieces: token streams or Parquet corpora, of codes or of notes.

    With --model: cross_entropy_nats, cross_entropy_bits, perplexity, top_1, top_5 of each piece, codebook or type of
    event, and of all; kbps of codes, bits_per_note of notes. Every token is scored once, after the real ones before it,
    as far back as the model's context reaches and half of it at least. A composer (symbolic-generator) reads pieces in
    its own language: chords and the end of the piece count, what it is told does not.

    With --continue: the model goes on from the beginning of each piece, greedily and at each temperature. Where that
    first differs from the real piece, and how often it is the same (beside the model's guesses when it reads the real
    piece); how much of the vocabulary it uses, and of the real piece's (coverage), entropy_bits and kl_bits.

    With --against: longest_run_tokens, of codes in the first codebook, and longest_run_notes, in any key and with any
    durations, the longest that a piece has in common with a corpus, which may be what a model was trained on.

    Items that failed are named, and the exit status is 1.
    """
    environment = environment_of(context)
    if model is None and not against:
        raise UsageError("no model is named", hint="name one with --model, or a corpus to compare with by --against")
    if prompt_tokens is not None and prompt_seconds is not None:
        raise UsageError("--prompt-tokens and --prompt-seconds contradict each other", hint="give one of them")
    if not going_on and not (prompt_tokens is None and prompt_seconds is None):
        raise UsageError("a prompt is for --continue", hint="say how far to go on: --continue 256")
    of_models = {"--continue": going_on, "--adapter": adapter, "--backing": backing, "--text": text, "--style": style}
    for option, value in of_models.items():
        if value and model is None:
            raise UsageError(f"{option} is for a --model", context=option)
    wanted = _parse_temperatures(temperatures)
    targets = Targets.plan(output, plot, force, as_json=as_json)
    sources = find_tokens(inputs, environment)
    backings = None if backing is None else find_tokens([backing], environment)
    bodies = find_tokens(against, environment) if against else []
    if sum(source.path is None for source in (*sources, *(backings or ()), *bodies)) > 1:
        raise UsageError("standard input is named twice", context="-", hint="name files, or a pipe of their own: <(…)")
    items = TokenItems(sources, environment, limit, backings)

    from musictool.inference.token_judging import METRICS, Judge, Wishes
    from musictool.inference.token_quotes import RUN_METRICS, Quotes
    from musictool.metrics.assertions import Assertion

    known = [*(METRICS if model is not None else ()), *(RUN_METRICS if bodies else ())]
    demands = [Assertion.parse(condition, known) for condition in conditions or ()]
    report = Report(environment, targets)
    judge = None
    if model is not None:
        loaded, predictor = _open(model, adapter, text, style, device, precision, environment)
        judge = Judge(predictor, Wishes(wanted, going_on, prompt_tokens, prompt_seconds, seed, batch))
        report.name_model(loaded.name, loaded.sha256, loaded.config.family, predictor.kind)
    quotes = Quotes() if bodies else None
    with tracked(items.pieces(), environment, by_table=report.has_table) as watched:
        for group in _grouped(watched, batch):
            _judge(group, judge, quotes, items.failed, report)
    if quotes is not None:
        with track(pieces_of(bodies, environment), environment, label="against") as watched:
            quotes.look_through(watched)
    is_good = report.finish(judge, quotes, items.failed, demands)
    if items.failed.broken is not None:
        raise items.failed.broken
    return ExitStatus.FINDINGS if items.failed.failures or not is_good else ExitStatus.DONE


def _judge(
    pieces: Sequence[TokenPiece], judge: Judge | None, quotes: Quotes | None, failed: Items, report: Report
) -> None:
    """Judge pieces side by side, and report on each."""
    fitting = []
    for piece in pieces:
        with failed.failing(piece.name):
            if quotes is not None:
                quotes.check(piece)
            fitting.append(piece)
    found = [{} for _ in fitting] if judge is None else judge.add(fitting)
    for piece, figures in zip(fitting, found, strict=True):
        if isinstance(figures, MusicToolError):
            failed.fail(piece.name, figures)
            continue
        with failed.failing(piece.name):
            if quotes is not None:
                quotes.add(piece)
            report.add(piece.name, figures)


def _grouped(pieces: Iterable[TokenPiece], count: int) -> Iterator[list[TokenPiece]]:
    """So many pieces at a time."""
    remaining = iter(pieces)
    while group := list(islice(remaining, count)):
        yield group


def _open(
    name: str,
    adapter: str | None,
    text: str | None,
    style: str | None,
    device: str,
    precision: Precision,
    environment: Environment,
) -> tuple[LoadedModel, CodePredictor | EventPredictor]:
    """The model that is judged."""
    from musictool.checkpoints.store import Store
    from musictool.inference.model_files import load_model
    from musictool.inference.token_predictors import Reading, open_predictor

    store = Store.from_environ(environment.environ).adapting(name, adapter)
    loaded = load_model(name, store=store)
    return loaded, open_predictor(loaded, Reading(store, device, precision.value, text, style, environment.warn))


def _parse_temperatures(text: str) -> tuple[float, ...]:
    """Temperatures, each once.

    Raises:
        UsageError: one is no number, or too low or high.
    """
    low, high = TEMPERATURE_RANGE
    found: list[float] = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = 0.0
        if not low <= value <= high:
            hint = f"numbers from {low:g} to {high:g}, as in {TEMPERATURES}"
            raise UsageError(f"no such temperature: {part.strip()[:40]!r}", context="--temperatures", hint=hint)
        found.append(value)
    return tuple(dict.fromkeys(found))
