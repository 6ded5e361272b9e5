"""`mtk eval symbolic`: what pieces are like, alone, beside references, or beside a corpus."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musictool.cli.environment import Environment, environment_of
from musictool.cli.exit_status import ExitStatus
from musictool.cli.files import Source
from musictool.cli.options import InputsArgument, JobsOption
from musictool.cli.parallel import parallel_map, use_one_thread
from musictool.commands.eval_items import (
    Candidate,
    Items,
    Table,
    are_fulfilled,
    demand_records,
    find_sources,
    tracked,
)
from musictool.errors import InputError, UsageError

if TYPE_CHECKING:
    from musictool.metrics.averages import Scores
    from musictool.metrics.corpus_likeness import Likeness
    from musictool.metrics.note_files import Kind, References
    from musictool.metrics.symbolic import Portrait
    from musictool.symbolic.notes import Score

EXAMPLES = (
    "mtk eval symbolic examples/waltz.mid",
    "mtk tokenize examples/waltz.mid -s remi | mtk eval symbolic -r examples/ --assert 'chord_similarity>=0.9' --json",
)
_FIGURE_COLUMNS = {
    "notes/s": "note_density",
    "  IOI s": "mean_ioi_seconds",
    "pitches": "unique_pitches",
    "entropy": "pitch_class_entropy",
    "harmony": "harmonic_complexity",
    " voices": "polyphony",
    " groove": "groove_consistency",
    " return": "bar_recurrence",
}
_COMPARISON_COLUMNS = {
    " pc KL": "pitch_class_kl",
    "pc steps": "pitch_class_transition_cosine",
    "profile": "profile_similarity",
    "frames": "frame_profile_similarity",
    " tonal": "tonal_distance",
    "chords": "chord_similarity",
    "melody": "melody_similarity",
    "chroma": "melody_chroma_similarity",
    "groove": "groove_similarity",
    "structure": "structural_similarity",
}
_LIKENESS_COLUMNS = {
    "overlap": "overlap",
    "     KL": "kl",
    "  mean": "results_mean",
    "spread": "results_deviation",
    "corpus mean": "corpus_mean",
    "corpus spread": "corpus_deviation",
}


def eval_symbolic(
    context: typer.Context,
    inputs: InputsArgument = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            "-r",
            metavar="PATH",
            show_default=False,
            help="What they were made from: a file, or a folder with NAME.mid, .tsv, .csv, .txt or .mtk for item NAME.",
        ),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            "--corpus", metavar="PATH", show_default=False, help="Pieces that they should be like, as a body: a folder."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with every figure, no table.")] = False,
    conditions: Annotated[
        list[str] | None,
        typer.Option(
            "--assert",
            metavar="CONDITION",
            show_default=False,
            help="End with status 1 unless the mean fulfils it, as in 'chord_similarity>=0.6'; may be repeated.",
        ),
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option("--scheme", metavar="NAME", show_default=False, help="Read streams by a miditok:FILE.json."),
    ] = None,
    jobs: JobsOption = 1,
) -> int:
    """Measure pieces as notes: each alone, against references, or all against a corpus.

    Pieces are token streams in any scheme, MIDI files, and lists of notes if they are named; references are found by an
    item's name.

    Alone: note_density, mean_ioi_seconds, unique_pitches, pitch_class_entropy, harmonic_complexity, polyphony,
    groove_consistency, bar_recurrence.

    With --reference also pitch_class_kl, pitch_class_transition_cosine, profile_similarity, frame_profile_similarity,
    tonal_distance, chord_similarity, melody_similarity, melody_chroma_similarity, groove_similarity,
    structural_similarity, and for each of the figures above how far it is from the reference's, FIGURE_difference.

    With --corpus also FIGURE_overlap and FIGURE_kl: how alike the two distributions are (Yang and Lerch, 2020); so too
    for the histograms pitch_classes and transitions.

    Items that have no reference or failed in an earlier stage are named, and the exit status is 1.
    """
    environment = environment_of(context)
    if reference is not None and corpus is not None:
        raise UsageError("--reference and --corpus contradict each other", hint="give one of them")
    if corpus == Path("-"):
        raise UsageError("a corpus cannot come from standard input", context="--corpus -", hint="name a folder")
    use_one_thread()
    from musictool.metrics.assertions import Assertion
    from musictool.metrics.averages import mean_of
    from musictool.metrics.corpus_likeness import FEATURES
    from musictool.metrics.note_files import References
    from musictool.metrics.symbolic import FIGURES
    from musictool.metrics.symbolic_similarity import COMPARISONS
    from musictool.symbolic.schemes import find_scheme

    names = [*FIGURES, *(COMPARISONS if reference is not None else ())]
    of_corpus = [f"{feature}_{measure}" for feature in FEATURES for measure in ("overlap", "kl")] if corpus else []
    demands = [Assertion.parse(condition, [*names, *of_corpus]) for condition in conditions or ()]
    own = find_scheme(scheme) if scheme else None
    references = References(reference, own) if reference is not None else None
    kinds: tuple[Kind, ...] = ("midi", "stream")  # a corpus's .csv and .tsv are rarely notes
    sources = find_sources(inputs, environment, kinds)
    corpus_sources = find_sources([str(corpus)], environment, kinds) if corpus is not None else []

    items = Items(environment, own)
    table = None if as_json or corpus is not None else _table(environment, references is not None)
    judged = _judged(items, _tasks(items, sources, references), jobs, environment, table)
    mean = mean_of((result.scores for result in judged), names)
    pieces: list[_Result] = []
    found: dict[str, Likeness] = {}
    if corpus is not None:
        pieces = _judged(items, _tasks(items, corpus_sources, None), jobs, environment, None)
        found = _likeness(judged, pieces, environment)
        mean |= {f"{feature}_overlap": like.overlap for feature, like in found.items()}
        mean |= {f"{feature}_kl": like.kl for feature, like in found.items()}
    if as_json:
        record = {
            "items": [{"item": result.name, **result.counts, **result.scores} for result in judged],
            "mean": mean,
            "corpus_pieces": len(pieces),
            "corpus": {feature: asdict(like) for feature, like in found.items()},
            "failed": items.failures,
            "assertions": demand_records(demands, mean),
        }
        environment.stdout.write(json.dumps(record, allow_nan=False).encode() + b"\n")
    elif table is None:
        _show_likeness(found, environment)
    elif judged:
        table.row([*_cells(mean, references is not None), *("" for _ in judged[0].counts)], f"mean of {len(judged)}")
    is_good = are_fulfilled(demands, mean, environment)
    if items.broken is not None:
        raise items.broken
    return ExitStatus.FINDINGS if items.failures or not is_good else ExitStatus.DONE


@dataclass(frozen=True)
class _Task:
    """One item to measure; goes to a worker process, which reads what is given as a path."""

    name: str
    piece: Score | Path
    reference: Score | Path | None


@dataclass(frozen=True)
class _Result:
    """What came out for one item, or what went wrong.

    Attributes:
        name: the item's.
        counts: how many notes it has, and its reference if there is one.
        scores: by name; the figures first.
        portrait: what a corpus is compared by, where there is no reference.
        error: why there is nothing else.
    """

    name: str
    counts: Mapping[str, int]
    scores: Scores
    portrait: Portrait | None = None
    error: InputError | None = None


def _tasks(items: Items, sources: Sequence[Source], references: References | None) -> Iterator[_Task]:
    """The task of every item that can be measured."""
    pairs: Iterable[tuple[Candidate, Score | Path | None]]
    if references is None:
        pairs = ((candidate, None) for candidate in items.read(sources))
    else:
        pairs = items.pairs(sources, references)
    for candidate, reference in pairs:
        if candidate.is_sound:
            hint = "of sound they are made by mtk transcribe FILE | mtk eval symbolic"
            error = InputError("no notes in this file", context=str(candidate.notes), hint=hint, code="no-notes")
            items.fail(candidate.name, error)
        else:
            yield _Task(candidate.name, candidate.notes, reference)


def _judge(task: _Task) -> _Result:
    """Measure one item."""
    from musictool.metrics.note_files import read_score
    from musictool.metrics.symbolic import portrait_of
    from musictool.metrics.symbolic_similarity import compare

    def piece_of(given: Score | Path) -> Score:
        return read_score(given) if isinstance(given, Path) else given

    try:
        piece = piece_of(task.piece)
        if task.reference is None:
            portrait = portrait_of(piece)
            return _Result(task.name, {"notes": portrait.notes}, portrait.figures, portrait)
        reference = piece_of(task.reference)
        counts = {"notes": len(piece.notes), "reference_notes": len(reference.notes)}
        return _Result(task.name, counts, compare(reference, piece))
    except InputError as error:
        return _Result(task.name, {}, {}, error=error)


def _judged(
    items: Items, tasks: Iterator[_Task], jobs: int, environment: Environment, table: Table | None
) -> list[_Result]:
    """Measure every item, and put those that can be in a table as they come, if there is one."""
    judged = []
    with tracked(parallel_map(_judge, tasks, jobs), environment, by_table=table is not None) as results:
        for result in results:
            if result.error is not None:
                items.fail(result.name, result.error)
                continue
            for counted in (counted for counted, notes in result.counts.items() if not notes):
                subject = "the reference" if counted == "reference_notes" else "it"
                environment.warn(f"{subject} has no notes", context=result.name)
            judged.append(result)
            if table is not None:
                cells = _cells(result.scores, "reference_notes" in result.counts)
                table.row([*cells, *map(str, result.counts.values())], result.name)
    return judged


def _likeness(results: Sequence[_Result], pieces: Sequence[_Result], environment: Environment) -> dict[str, Likeness]:
    """How like a corpus's pieces the results are, by feature."""
    from musictool.metrics.corpus_likeness import CORPUS_PIECES_MIN, likeness

    if len(pieces) < CORPUS_PIECES_MIN:
        hint = f"it takes {CORPUS_PIECES_MIN} pieces, and says more of hundreds"
        environment.warn("the corpus is too small for distributions", context="--corpus", hint=hint)
    ours, theirs = ([one.portrait for one in some if one.portrait is not None] for some in (results, pieces))
    return likeness(ours, theirs)


def _columns(is_compared: bool) -> dict[str, str]:
    return _COMPARISON_COLUMNS if is_compared else _FIGURE_COLUMNS


def _table(environment: Environment, is_compared: bool) -> Table:
    counts = ["  notes", "     of"] if is_compared else ["  notes"]
    return Table(environment, [*_columns(is_compared), *counts])


def _cells(scores: Scores, is_compared: bool) -> list[str]:
    return [_cell(scores[name]) for name in _columns(is_compared).values()]


def _show_likeness(found: Mapping[str, Likeness], environment: Environment) -> None:
    table = Table(environment, list(_LIKENESS_COLUMNS), subject="feature")
    for feature, one in found.items():
        table.row([_cell(getattr(one, name)) for name in _LIKENESS_COLUMNS.values()], feature)


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
