"""`mtk eval transcription`: notes out of streams, MIDI, lists or sound, held against the notes that were played."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musictool.cli.environment import UNPRINTABLE, Environment, environment_of
from musictool.cli.exit_status import ExitStatus
from musictool.cli.files import OutputPlan, Source, atomic_writer
from musictool.cli.options import (
    AdapterOption,
    DeviceOption,
    ForceOption,
    InputsArgument,
    JobsOption,
    ModelOption,
    Precision,
    PrecisionOption,
)
from musictool.cli.parallel import parallel_map, use_one_thread
from musictool.commands.eval_items import Items, Table, are_fulfilled, demand_records, find_sources, tracked
from musictool.commands.picture_plan import plan_pictures
from musictool.errors import InputError
from musictool.metrics.granularity import Granularity

if TYPE_CHECKING:
    from musictool.inference.transcription import Transcriber
    from musictool.metrics.assertions import Assertion
    from musictool.metrics.averages import Scores
    from musictool.metrics.note_files import References
    from musictool.metrics.transcription import Comparison
    from musictool.symbolic.notes import Score

EXAMPLES = (
    "mtk tokenize examples/waltz.mid | mtk eval transcription --reference examples/",
    "mtk tokenize examples/waltz.mid -s mt3 | mtk eval transcription -r examples/ --assert 'onset_f1>=0.99' --json",
)
TITLE_NAME_CHARACTERS = 80
_COLUMNS = {
    "onset P": "onset_precision",
    "onset R": "onset_recall",
    "onset F1": "onset_f1",
    "offset F1": "onset_offset_f1",
    "velocity F1": "onset_offset_velocity_f1",
    "frame F1": "frame_f1",
    "multi F1": "multi_instrument_f1",
    "late ms": "median_onset_error_ms",
}
_IN_TITLE = {"onset": "onset", "onset+offset": "onset_offset", "frame": "frame"}


def eval_transcription(
    context: typer.Context,
    reference: Annotated[
        Path,
        typer.Option(
            "--reference",
            "-r",
            metavar="PATH",
            show_default=False,
            help="What was played: a file, or a folder that holds NAME.mid, .tsv, .csv, .txt or .mtk for item NAME.",
        ),
    ],
    inputs: InputsArgument = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with every score, no table.")] = False,
    conditions: Annotated[
        list[str] | None,
        typer.Option(
            "--assert",
            metavar="CONDITION",
            show_default=False,
            help="End with status 1 unless the mean fulfils it, as in 'onset_f1>=0.77'; may be repeated.",
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(
            "--plot",
            metavar="PATH",
            show_default=False,
            help="Draw both as piano rolls: a .png, .pdf or .svg file, a folder/, or a template such as '{stem}.png'.",
        ),
    ] = None,
    onset_tolerance: Annotated[
        float, typer.Option("--onset-tolerance", metavar="SECONDS", help="How far apart matching notes may begin.")
    ] = 0.05,
    offset_ratio: Annotated[
        float,
        typer.Option(
            "--offset-ratio", metavar="SHARE", help="How far apart they may end, as a share of the reference's length."
        ),
    ] = 0.2,
    offset_min_tolerance: Annotated[
        float,
        typer.Option("--offset-min-tolerance", metavar="SECONDS", help="How far apart they may end, if that is less."),
    ] = 0.05,
    duration: Annotated[
        float | None,
        typer.Option(
            "--duration",
            metavar="SECONDS",
            show_default=False,
            help="Compare the first part only: notes that begin in it, cut at its end.",
        ),
    ] = None,
    pedal: Annotated[
        bool,
        typer.Option("--pedal", help="Let the reference's notes sound as long as the sustain pedal holds them."),
    ] = False,
    granularity: Annotated[
        Granularity, typer.Option("--granularity", help="How finely multi_instrument tells programs apart.")
    ] = Granularity.FULL,
    scheme: Annotated[
        str | None,
        typer.Option("--scheme", metavar="NAME", show_default=False, help="Read streams by a miditok:FILE.json."),
    ] = None,
    model: ModelOption = "note-tagger",
    adapter: AdapterOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.FP32,
    jobs: JobsOption = 1,
    force: ForceOption = False,
) -> int:
    """Measure transcriptions against the notes that were played.

    Estimates are token streams, whose items are matched by name, MIDI files, lists of notes (.tsv, .csv, .txt: onset,
    offset, pitch, velocity) and sound, which is transcribed first. Without --pedal notes end where keys are released.

    Metrics: onset, onset_offset, onset_offset_velocity, frame and multi_instrument, each with _precision, _recall and
    _f1; onset_offset_overlap and median_onset_error_ms. The table shows some of them, --json has all.

    Items that have no reference or failed in an earlier stage are named, and the exit status is 1.
    """
    environment = environment_of(context)
    use_one_thread()
    from musictool.metrics.assertions import Assertion
    from musictool.metrics.note_files import References
    from musictool.metrics.note_matching import Tolerances
    from musictool.metrics.transcription import METRICS, Comparison, mean_scores
    from musictool.symbolic.schemes import find_scheme

    demands = [Assertion.parse(condition, METRICS) for condition in conditions or ()]
    tolerances = Tolerances(onset_tolerance, offset_ratio, offset_min_tolerance)
    comparison = Comparison(tolerances, duration, pedal, granularity)
    pictures = plan_pictures(plot, force)
    own = find_scheme(scheme) if scheme else None
    references = References(reference, own)
    sources = find_sources(inputs, environment, ("midi", "table", "stream", "audio"))

    items = Items(environment, own)
    listener = _listener(model, adapter, device, precision, environment)
    tasks = _tasks(items, sources, references, comparison, pictures, listener)
    results = parallel_map(_compare, tasks, jobs)
    scored: list[_Result] = []
    table = None if as_json else _table(environment)
    with tracked(results, environment, by_table=table is not None) as watched:
        for result in watched:
            if result.error is not None:
                items.fail(result.name, result.error)
                continue
            if not result.note_counts[0]:
                environment.warn("the reference has no notes: every score is 0", context=result.name)
            scored.append(result)
            if table is not None:
                table.row([*_cells(result.scores), *map(str, result.note_counts)], result.name)
    mean = mean_scores(result.scores for result in scored)
    if table is None:
        environment.stdout.write(_json(scored, mean, items.failures, comparison, demands))
    elif scored:
        table.row([*_cells(mean), "", ""], f"mean of {len(scored)}")
    is_good = are_fulfilled(demands, mean, environment)
    if items.broken is not None:
        raise items.broken
    return ExitStatus.FINDINGS if items.failures or not is_good else ExitStatus.DONE


def _listener(
    model: str, adapter: str | None, device: str, precision: Precision, environment: Environment
) -> Callable[[Path], Score]:
    """What hears the notes in a sound file; the model is loaded with the first."""
    transcriber: Transcriber | None = None

    def listen(path: Path) -> Score:
        nonlocal transcriber
        from musictool.audio.reading import open_audio
        from musictool.checkpoints.store import Store
        from musictool.inference.transcription import Sound, Transcription, open_transcriber

        if transcriber is None:
            options = Transcription(model, device, precision.value)
            store = Store.from_environ(environment.environ).adapting(model, adapter)
            transcriber = open_transcriber(options, store)
        sound = Sound(path.stem, partial(open_audio, path, str(path)))
        (score,) = (piece.score() for piece in transcriber.run([sound]))
        return score

    return listen


@dataclass(frozen=True)
class _Task:
    """One item to compare; goes to a worker process, which reads what is given as a path."""

    name: str
    estimate: Score | Path
    reference: Score | Path
    comparison: Comparison
    picture: Path | None = None
    force: bool = False


@dataclass(frozen=True)
class _Result:
    """What came out for one item: its scores and how many notes reference and estimate have, or what went wrong."""

    name: str
    scores: Scores
    note_counts: tuple[int, int] = (0, 0)
    error: InputError | None = None


def _compare(task: _Task) -> _Result:
    """Compare one item, and draw it if it has a picture."""
    from musictool.metrics.note_files import read_score
    from musictool.metrics.transcription import evaluate

    try:
        true, found = (
            read_score(source) if isinstance(source, Path) else source for source in (task.reference, task.estimate)
        )
        reference, estimate = task.comparison.notes_of(true, found)
        scores = evaluate(reference, estimate, task.comparison.tolerances)
        if task.picture is not None:
            from musictool.metrics.piano_roll import draw

            form = task.picture.suffix.lower().lstrip(".")
            title = _title(task.name, scores)
            with atomic_writer(task.picture, force=task.force) as file:
                draw(file, reference, estimate, title=title, tolerances=task.comparison.tolerances, format=form)
    except InputError as error:
        if error.code == "no-space":
            raise
        return _Result(task.name, {}, error=error)
    return _Result(task.name, scores, (len(reference), len(estimate)))


def _title(name: str, scores: Scores) -> str:
    f1s = (f"{label} F1 {scores[f'{metric}_f1']:.3f}" for label, metric in _IN_TITLE.items())
    return "     ".join([UNPRINTABLE.sub("_", name)[:TITLE_NAME_CHARACTERS], *f1s])


def _tasks(
    items: Items,
    sources: Sequence[Source],
    references: References,
    comparison: Comparison,
    pictures: OutputPlan | None,
    listen: Callable[[Path], Score],
) -> Iterator[_Task]:
    """The task of every item that has a reference, with a place for its picture if one is asked for.

    Raises:
        InputError: the only input, a file, cannot be read.
    """
    for candidate, reference in items.pairs(sources, references):
        with items.failing(candidate.name):
            picture = None
            if pictures is not None:
                picture = pictures.path_for(candidate.name)
                pictures.check(picture)
            estimate = candidate.notes
            if candidate.is_sound and isinstance(estimate, Path):
                estimate = listen(estimate)
            force = pictures is not None and pictures.force
            yield _Task(candidate.name, estimate, reference, comparison, picture, force)


def _table(environment: Environment) -> Table:
    return Table(environment, [*_COLUMNS, f"{'played':>7}", f"{'found':>7}"])


def _cells(scores: Scores) -> list[str]:
    return [_cell(metric, scores[metric]) for metric in _COLUMNS.values()]


def _cell(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:+.1f}" if metric.endswith("_ms") else f"{value:.4f}"


def _json(
    scored: Sequence[_Result],
    mean: Scores,
    failures: Sequence[dict[str, str]],
    comparison: Comparison,
    demands: Sequence[Assertion],
) -> bytes:
    """Everything that is known of a run, as one line of JSON."""
    counts = "reference_notes", "estimated_notes"
    record = {
        "settings": asdict(comparison),
        "items": [{"item": r.name, **dict(zip(counts, r.note_counts)), **r.scores} for r in scored],
        "mean": mean,
        "failed": failures,
        "assertions": demand_records(demands, mean),
    }
    return json.dumps(record, allow_nan=False).encode() + b"\n"
