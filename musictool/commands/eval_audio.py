"""`mtk eval audio`: sound held against the sound it should be, or against a body of sound; and a codec's codes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musictool.cli.environment import Environment, environment_of
from musictool.cli.files import Source
from musictool.cli.options import DeviceOption, ForceOption, InputsArgument, JobsOption
from musictool.cli.parallel import use_one_thread
from musictool.commands.eval_audio_codes import judge_codes
from musictool.commands.eval_audio_frechet import judge_body, open_model
from musictool.commands.eval_audio_pairs import Comparison, Pairs, judge_pairs, metrics_of_pairs
from musictool.commands.eval_items import find_sources
from musictool.commands.picture_plan import plan_pictures
from musictool.errors import InputError, UsageError

if TYPE_CHECKING:
    from musictool.metrics.assertions import Assertion

EXAMPLES = (
    "mtk encode examples/waltz.ogg | mtk eval audio",
    "mtk encode examples/waltz.ogg | mtk decode | mtk eval audio -r examples/waltz.ogg --mono --plot waltz.png -f",
)


def eval_audio(
    context: typer.Context,
    inputs: InputsArgument = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            "-r",
            metavar="PATH",
            show_default=False,
            help="What sound should be like: a file, or a folder with NAME.wav, .flac, .ogg, .mp3 … for item NAME.",
        ),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            "--corpus",
            metavar="PATH",
            show_default=False,
            help="Sound that it should be like as a body, not file by file: a folder.",
        ),
    ] = None,
    embeddings: Annotated[
        str | None,
        typer.Option(
            "--embeddings",
            metavar="MODEL",
            show_default=False,
            help="The Fréchet distance too, over this model's: auto, note-tagger, a codec, clap, vggish, or a path.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with every figure, no table.")] = False,
    conditions: Annotated[
        list[str] | None,
        typer.Option(
            "--assert",
            metavar="CONDITION",
            show_default=False,
            help="End with status 1 unless the mean fulfils it, as in 'mel_distance<=0.2'; may be repeated.",
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(
            "--plot",
            metavar="PATH",
            show_default=False,
            help="Draw both as spectrograms: a .png, .pdf or .svg file, a folder/, or a template such as '{stem}.png'.",
        ),
    ] = None,
    mono: Annotated[bool, typer.Option("--mono", help="Compare the mean of all channels.")] = False,
    length_tolerance: Annotated[
        float,
        typer.Option(
            "--length-tolerance", metavar="SECONDS", min=0, help="By how much lengths may differ: the rest is left out."
        ),
    ] = 0.1,
    device: DeviceOption = "auto",
    jobs: JobsOption = 1,
    force: ForceOption = False,
) -> int:
    """Measure sound beside the sound it should be, or a codec's codes by themselves.

    With --reference: si_sdr_db, mel_distance, stft_distance, spectral_convergence, log_stft_distance and file_kbps.
    Results are resampled to their reference's rate and compared channel by channel, with nothing shifted.

    With --corpus, or with --embeddings beside --reference: frechet_distance of all results to all that they should be
    like. auto is CLAP or VGGish where their weights are, in the store's folder embeddings, and else note-tagger.

    With neither, token streams of codes: usage, least_usage, entropy_bits and perplexity of codebooks, bit_rate_kbps
    and entropy_kbps; --assert is then about all items together.

    Items that have no reference or failed in an earlier stage are named, and the exit status is 1.
    """
    environment = environment_of(context)
    if reference is not None and corpus is not None:
        raise UsageError("--reference and --corpus contradict each other", hint="give one of them")
    if corpus == Path("-"):
        raise UsageError("a corpus cannot come from standard input", context="--corpus -", hint="name a folder")
    for option, is_given in {"--plot": plot is not None, "--mono": mono}.items():
        if is_given and reference is None:
            raise UsageError(f"{option} is for sound that has a --reference", context=option)
    if embeddings is not None and reference is None and corpus is None:
        raise UsageError("--embeddings is for sound that has a --reference or a --corpus", context="--embeddings")
    use_one_thread()
    from musictool.metrics.assertions import Assertion

    def demands(names: Sequence[str]) -> list[Assertion]:
        return [Assertion.parse(condition, names) for condition in conditions or ()]

    if reference is None and corpus is None:
        from musictool.metrics.codes import CODE_METRICS

        of_codes = demands(CODE_METRICS)
        return judge_codes(find_sources(inputs, environment, ["stream"]), of_codes, environment, as_json=as_json)

    from musictool.metrics.audio_pairs import SoundReferences

    has_distance = embeddings is not None or corpus is not None
    names = metrics_of_pairs() if reference is not None else []
    of_sound = demands([*names, "frechet_distance"] if has_distance else names)
    pictures = plan_pictures(plot, force)
    references = SoundReferences(reference) if reference is not None else None
    sources = find_sources(inputs, environment, ["audio"])
    corpus_sources = find_sources([str(corpus)], environment, ["audio"]) if corpus is not None else []
    model = open_model(embeddings or "auto", device, environment) if has_distance else None
    with _on_disk(sources, environment) as (files, shown):
        sounds = [_of_sound(source) for source in files]
        if len(sounds) == 1 and sounds[0].error is not None:
            raise sounds[0].error
        if references is not None:
            pairs = Pairs(sounds, references, Comparison(mono, length_tolerance), pictures, model, jobs, shown)
            return judge_pairs(pairs, of_sound, environment, as_json=as_json)
        assert model is not None
        return judge_body(sounds, corpus_sources, model, of_sound, environment, as_json=as_json, shown=shown)


@contextmanager
def _on_disk(sources: Sequence[Source], environment: Environment) -> Iterator[tuple[list[Source], dict[Path, str]]]:
    """Sources that can be read more than once: what comes through a pipe lies in a temporary file meanwhile.

    Yields:
        The sources, and what to call the temporary files in errors.
    """
    with tempfile.TemporaryDirectory() as folder:
        kept, shown = [], {}
        for number, source in enumerate(sources):
            if source.error is None and (source.path is None or source.path.is_fifo()):
                path = Path(folder) / str(number)
                with open(path, "wb") as file:
                    if source.path is None:
                        shutil.copyfileobj(environment.stdin, file)
                    else:
                        with open(source.path, "rb") as pipe:
                            shutil.copyfileobj(pipe, file)
                shown[path] = "standard input" if source.path is None else str(source.path)
                source = replace(source, path=path)
            kept.append(source)
        yield kept, shown


def _of_sound(source: Source) -> Source:
    """A source, with an error if it is something else than sound."""
    from musictool.metrics.note_files import kind_of

    if source.error is not None or source.path is None:
        return source
    try:
        with open(source.path, "rb") as file:
            kind = kind_of(source.path, file.read(12))
    except OSError:
        return source  # whoever reads it says why
    if kind == "audio":
        return source
    hint = "mtk decode makes sound of it" if kind == "stream" else ""
    return replace(source, error=InputError("no sound in this file", context=source.name, hint=hint, code="no-sound"))
