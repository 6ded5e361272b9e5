"""`mtk eval audio` of sounds that have a reference: each is held against its own, and drawn beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musictool.cli.environment import UNPRINTABLE, Environment
from musictool.cli.exit_status import ExitStatus
from musictool.cli.files import OutputPlan, Source, atomic_writer
from musictool.cli.parallel import parallel_map
from musictool.commands.eval_audio_frechet import Likeness, embed_files, likeness_of
from musictool.commands.eval_items import Items, Table, are_fulfilled, demand_records, tracked
from musictool.errors import InputError

if TYPE_CHECKING:
    from musictool.inference.audio_embeddings import Embedding
    from musictool.metrics.assertions import Assertion
    from musictool.metrics.audio_pairs import SoundPair, SoundReferences
    from musictool.metrics.averages import Scores

TITLE_NAME_CHARACTERS = 80
_COLUMNS = {
    "SI-SDR dB": "si_sdr_db",
    "    mel": "mel_distance",
    "   STFT": "stft_distance",
    "convergence": "spectral_convergence",
    "log STFT": "log_stft_distance",
    " kbit/s": "file_kbps",
    "  seconds": "seconds",
}


@dataclass(frozen=True)
class Comparison:
    """How sounds are compared.

    Attributes:
        is_mixed: by the mean of all channels.
        length_tolerance_seconds: by how much their lengths may differ.
    """

    is_mixed: bool = False
    length_tolerance_seconds: float = 0.1


@dataclass(frozen=True)
class Pairs:
    """What there is to judge.

    Attributes:
        sources: the results; none of them is standard input or a pipe.
        references: finds what each should be like.
        comparison: how.
        pictures: where pictures go; None for none.
        model: what embeds both for a Fréchet distance; None for none.
        jobs: processes.
        shown: what to call files in errors that are copies of something else.
    """

    sources: Sequence[Source]
    references: SoundReferences
    comparison: Comparison
    pictures: OutputPlan | None = None
    model: Embedding | None = None
    jobs: int = 1
    shown: Mapping[Path, str] = field(default_factory=dict)


def judge_pairs(pairs: Pairs, demands: Sequence[Assertion], environment: Environment, *, as_json: bool) -> int:
    """Hold every sound against its reference, and report on them.

    Args:
        pairs: what there is to judge.
        demands: conditions on the means.
        environment: the world.
        as_json: one JSON object, no table.

    Returns:
        The exit status.

    Raises:
        InputError: the only input cannot be read.
    """
    from musictool.metrics.averages import mean_of

    items = Items(environment, None)
    table = None if as_json else Table(environment, list(_COLUMNS))
    judged: list[_Result] = []
    results = parallel_map(_compare, _tasks(items, pairs, environment), pairs.jobs)
    with tracked(results, environment, by_table=table is not None) as watched:
        for result in watched:
            if result.error is not None:
                items.fail(result.task.name, result.error)
                continue
            _warn(result, environment)
            judged.append(result)
            if table is not None:
                table.row(_cells(result.figures), result.task.name)
    mean = mean_of((result.figures for result in judged), metrics_of_pairs())
    likeness = _likeness(judged, pairs.model, items, environment) if pairs.model is not None else None
    if likeness is not None:
        mean["frechet_distance"] = likeness.distance
    if table is None:
        environment.stdout.write(_json(judged, mean, likeness, items.failures, pairs.comparison, demands))
    elif judged:
        table.row(_cells({**mean, "seconds": None}), f"mean of {len(judged)}")
        if likeness is not None:
            environment.stdout.write(b"\n")
            likeness.show(environment)
    is_good = are_fulfilled(demands, mean, environment)
    return ExitStatus.FINDINGS if items.failures or not is_good else ExitStatus.DONE


def metrics_of_pairs() -> list[str]:
    """What has a mean, and conditions can be about."""
    from musictool.metrics.audio import METRICS

    return [*METRICS, "file_kbps"]


@dataclass(frozen=True)
class _Task:
    """One pair to compare; goes to a worker process, which has a core to itself."""

    name: str
    result: Path
    shown: str
    reference: Path
    comparison: Comparison
    picture: Path | None
    is_forced: bool
    is_worker: bool


@dataclass(frozen=True)
class _Result:
    """What came out for one pair, or what went wrong.

    Attributes:
        task: what was to be done.
        scores: the metrics, and the bit rate of the result's file.
        facts: rate_hz, channels, seconds and surplus_seconds of what was compared.
        truncated: files that broke off before their sound ended.
        error: why there is nothing else.
    """

    task: _Task
    scores: Scores = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    truncated: tuple[Path, ...] = ()
    error: InputError | None = None

    @property
    def figures(self) -> Scores:
        """The columns of the table, and more."""
        return {**self.scores, "seconds": self.facts["seconds"]}


def _tasks(items: Items, pairs: Pairs, environment: Environment) -> Iterator[_Task]:
    """The task of every item that has a reference, with a place for its picture if one is asked for.

    Raises:
        InputError: the only input cannot be read.
    """
    for candidate in items.read(pairs.sources):
        with items.failing(candidate.name):
            if not isinstance(candidate.notes, Path):
                continue
            reference = pairs.references.find(*candidate.names)
            if reference.samefile(candidate.notes):
                environment.note("left out, since it is its own reference", context=str(candidate.notes))
                continue
            picture = None
            if pairs.pictures is not None:
                picture = pairs.pictures.path_for(candidate.name)
                pairs.pictures.check(picture)
            is_forced = pairs.pictures is not None and pairs.pictures.force
            result, is_worker = candidate.notes, pairs.jobs != 1
            shown = pairs.shown.get(result, str(result))
            yield _Task(candidate.name, result, shown, reference, pairs.comparison, picture, is_forced, is_worker)


def _compare(task: _Task) -> _Result:
    """Compare one pair, and draw it if it has a picture."""
    import torch

    from musictool.metrics.audio import evaluate

    if task.is_worker:
        torch.set_num_threads(1)
    try:
        with _opened(task) as pair:
            scores = evaluate(pair.blocks(), pair.rate_hz)
        seconds = pair.samples / pair.rate_hz
        size = task.result.stat().st_size
        scores["file_kbps"] = size * 8 / 1000 / (seconds + max(0.0, pair.surplus_seconds))
        if task.picture is not None:
            _draw(task, pair.samples, scores)
    except InputError as error:
        if error.code == "no-space":
            raise
        return _Result(task, error=error)
    facts = {
        "rate_hz": pair.rate_hz,
        "channels": pair.channels,
        "seconds": seconds,
        "surplus_seconds": pair.surplus_seconds,
    }
    return _Result(task, scores, facts, pair.truncated)


def _opened(task: _Task) -> SoundPair:
    from musictool.metrics.audio_pairs import SoundPair

    return SoundPair(
        task.reference,
        task.result,
        is_mixed=task.comparison.is_mixed,
        tolerance_seconds=task.comparison.length_tolerance_seconds,
        result_context=task.shown,
    )


def _draw(task: _Task, samples: int, scores: Scores) -> None:
    """Draw a pair that has been compared."""
    from musictool.metrics.spectrogram_picture import draw, spectrograms_of

    assert task.picture is not None
    with _opened(task) as pair:
        spectrograms = spectrograms_of(pair.blocks(), pair.rate_hz, samples)
    form = task.picture.suffix.lower().lstrip(".")
    with atomic_writer(task.picture, force=task.is_forced) as file:
        draw(file, spectrograms, title=_title(task.name, scores), format=form)


def _title(name: str, scores: Scores) -> str:
    si_sdr, mel, stft = (_cell(metric, scores[metric]) for metric in ("si_sdr_db", "mel_distance", "stft_distance"))
    figures = f"SI-SDR {si_sdr} dB", f"mel {mel}", f"STFT {stft}"
    return "     ".join([UNPRINTABLE.sub("_", name)[:TITLE_NAME_CHARACTERS], *figures])


def _warn(result: _Result, environment: Environment) -> None:
    """Say what a reader of the figures should know."""
    for path in result.truncated:
        environment.warn("the file ends before its sound does", context=str(path), code="truncated")
    if result.scores["si_sdr_db"] is None:
        message = "one of the two is silent: there is no SI-SDR"
        environment.warn(message, context=result.task.name, code="silent")


def _likeness(judged: Sequence[_Result], model: Embedding, items: Items, environment: Environment) -> Likeness:
    """How like all references all results are."""
    results = [(result.task.name, result.task.result) for result in judged]
    references = [(result.task.name, result.task.reference) for result in judged]
    ours, _ = embed_files(results, model, items, environment)
    theirs, _ = embed_files(references, model, items, environment)
    return likeness_of(ours, theirs, model, environment)


def _cells(figures: Scores) -> list[str]:
    return [_cell(name, figures[name]) for name in _COLUMNS.values()]


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    digits = {"si_sdr_db": 2, "file_kbps": 2, "seconds": 3}.get(name, 4)
    return f"{value:.{digits}f}"


def _json(
    judged: Sequence[_Result],
    mean: Scores,
    likeness: Likeness | None,
    failures: Sequence[dict[str, str]],
    comparison: Comparison,
    demands: Sequence[Assertion],
) -> bytes:
    """Everything that is known of a run, as one line of JSON."""
    record = {
        "settings": asdict(comparison),
        "items": [{"item": result.task.name, **result.facts, **result.scores} for result in judged],
        "mean": mean,
        "frechet": None if likeness is None else likeness.to_json(),
        "failed": failures,
        "assertions": demand_records(demands, mean),
    }
    return json.dumps(record, allow_nan=False).encode() + b"\n"
