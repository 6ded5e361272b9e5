"""`mtk describe`: notes -> their key, tempo, chords, melody, groove and loudness, bar by bar."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musictool.cli.environment import UNPRINTABLE, Environment, environment_of
from musictool.cli.exit_status import ExitStatus
from musictool.cli.files import Source
from musictool.cli.options import InputsArgument, JobsOption
from musictool.cli.parallel import parallel_map, use_one_thread
from musictool.cli.progress import track
from musictool.commands.eval_items import Items, find_sources
from musictool.errors import InputError, UsageError

if TYPE_CHECKING:
    from musictool.symbolic.description import Description, Stretch
    from musictool.symbolic.notes import Score

EXAMPLES = (
    "mtk describe examples/waltz.mid",
    "mtk tokenize examples/waltz.mid | mtk describe --every 4 --json",
)
BLOCKS = "▁▂▃▄▅▆▇█"
MELODY_POINTS, GROOVE_SLOTS = 12, 16
CHORDS_WIDTH = 24
SURE_MARGIN = 0.02
LOUDNESS = ((23, "ppp"), (40, "pp"), (55, "p"), (71, "mp"), (87, "mf"), (103, "f"), (119, "ff"), (127, "fff"))


def describe(
    context: typer.Context,
    inputs: InputsArgument = None,
    every: Annotated[
        float | None,
        typer.Option(
            "--every",
            metavar="SECONDS",
            show_default=False,
            help="Describe stretches of this length; else bars, or 2 seconds where there are none.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line for each item.")] = False,
    scheme: Annotated[
        str | None,
        typer.Option("--scheme", metavar="NAME", show_default=False, help="Read streams by a miditok:FILE.json."),
    ] = None,
    jobs: JobsOption = 1,
) -> int:
    """Say what is going on in a piece: key and tempo, and by the bar chords, melody, groove and loudness.

    Inputs are MIDI files, lists of notes (.tsv, .csv: onset, offset, pitch, velocity) and token streams of any scheme.
    The melody is the line of highest notes: its course, from the item's lowest to its highest, and its compass. The
    groove shows when notes begin. Drums are left aside; a key with a question mark is a guess.

    Items that cannot be read or that an earlier stage gave up are named, and the exit status is 1.
    """
    environment = environment_of(context)
    if every is not None and not 0 < every < float("inf"):
        raise UsageError(f"no length: {every}", context="--every", hint="give a number of seconds above 0")
    use_one_thread()
    from musictool.symbolic.schemes import find_scheme

    items = Items(environment, find_scheme(scheme) if scheme else None)
    sources = find_sources(inputs, environment, ("midi", "table", "stream"))
    results = parallel_map(partial(_describe, every=every), _tasks(items, sources), jobs)
    show = _json_line if as_json else _page
    with _tracked(results, environment, is_text=not as_json) as watched:
        for name, description in watched:
            if isinstance(description, InputError):
                items.fail(name, description)
            else:
                environment.stdout.write(show(name, description).encode())
                environment.stdout.flush()
    if items.broken is not None:
        raise items.broken
    return ExitStatus.FINDINGS if items.failures else ExitStatus.DONE


@dataclass(frozen=True)
class _Task:
    """One item; goes to a worker process, which reads it if it is given as a path."""

    name: str
    notes: Score | Path


_Result = tuple[str, "Description | InputError"]


def _tasks(items: Items, sources: Sequence[Source]) -> Iterator[_Task]:
    """Every item that holds notes.

    Raises:
        InputError: the only input, a file, holds none.
    """
    for candidate in items.read(sources):
        if candidate.is_sound:
            hint = f"sound is listened to first: mtk transcribe {candidate.notes} | mtk describe"
            items.fail(candidate.name, InputError("no MIDI file, list of notes or token stream", hint=hint))
        else:
            yield _Task(candidate.name, candidate.notes)


def _describe(task: _Task, every: float | None) -> _Result:
    """Describe one item, or say why it cannot be."""
    from musictool.metrics.note_files import read_score
    from musictool.symbolic.description import describe

    try:
        score = read_score(task.notes) if isinstance(task.notes, Path) else task.notes
        return task.name, describe(score, every)
    except InputError as error:
        return task.name, error


@contextmanager
def _tracked(results: Iterable[_Result], environment: Environment, *, is_text: bool) -> Iterator[Iterable[_Result]]:
    """Show how many items are done, unless their pages on the same terminal do so."""
    if is_text and environment.is_stdout_terminal:
        yield results
        return
    with track(results, environment, label="describe") as watched:
        yield watched


def _json_line(name: str, description: Description) -> str:
    return json.dumps({"item": name, **description.to_json()}, allow_nan=False) + "\n"


def _page(name: str, description: Description) -> str:
    """A heading with what holds for the whole item, and a line for each stretch."""
    facts = [_key(description), *description.time_signatures]
    if description.quarters_per_minute is not None:
        facts.append(f"{description.quarters_per_minute:.0f} quarters a minute")
    facts += [f"{description.note_count:,} notes", f"{description.duration_seconds:.1f} s"]
    unit = "bar" if description.is_by_bar else "part"
    columns = f"{unit:>5}  {'time':>8}  {'chords':{CHORDS_WIDTH}}  {'melody':{MELODY_POINTS}}  {'from':4} {'to':4}"
    heading = f"{columns}  {'groove':{GROOVE_SLOTS}}  {'onsets/s':>8}  {'off-beat':>8}  velocity"
    pitches = [pitch for stretch in description.stretches for pitch in stretch.melody.pitch.tolist()]
    compass = (min(pitches, default=0), max(pitches, default=0))
    lines = [_line(stretch, compass) for stretch in description.stretches]
    title = f"{UNPRINTABLE.sub('_', name)}: {', '.join(facts)}"
    return "\n".join([title, heading, *lines, "", ""])


def _key(description: Description) -> str:
    key = description.key
    if key is None:
        return "no key"
    return key.name if key.margin >= SURE_MARGIN else f"{key.name} (?)"


def _line(stretch: Stretch, compass: tuple[int, int]) -> str:
    """A stretch; `compass` is the lowest and the highest pitch of the item's melody."""
    from musictool.symbolic.theory import pitch_name

    start = f"{int(stretch.start_seconds // 60)}:{stretch.start_seconds % 60:05.2f}"
    symbols = " ".join(chord.symbol for chord in stretch.chords)
    chords = symbols if len(symbols) <= CHORDS_WIDTH else symbols[: CHORDS_WIDTH - 1] + "…"
    pitches = stretch.melody.pitch.tolist()
    low, high = (pitch_name(limit(pitches)) for limit in (min, max)) if pitches else ("", "")
    melody = f"{_course(stretch, compass)}  {low:4} {high:4}"
    figures = f"{stretch.attacks_per_second:8.1f}  {stretch.syncopation:8.2f}  {_loudness(stretch)}"
    return f"{stretch.number:5}  {start:>8}  {chords:{CHORDS_WIDTH}}  {melody}  {_groove(stretch)}  {figures}".rstrip()


def _course(stretch: Stretch, compass: tuple[int, int]) -> str:
    """The melody's pitch at even steps, as heights; blank where it rests."""
    low, high = compass
    length = stretch.end_seconds - stretch.start_seconds
    notes = list(zip(*(column.tolist() for column in stretch.melody[:3]), strict=True))
    shown = ""
    for point in range(MELODY_POINTS):
        now = stretch.start_seconds + (point + 0.5) / MELODY_POINTS * length
        sounding = [pitch for onset, offset, pitch in notes if onset <= now < offset]
        shown += BLOCKS[(sounding[0] - low) * (len(BLOCKS) - 1) // max(high - low, 1)] if sounding else " "
    return shown


def _groove(stretch: Stretch) -> str:
    """How many notes begin in each of the slots of a stretch, as heights."""
    length = stretch.end_seconds - stretch.start_seconds
    counts = [0] * GROOVE_SLOTS
    for onset in stretch.onset_seconds.tolist():
        slot = round((onset - stretch.start_seconds) / length * GROOVE_SLOTS)
        counts[min(max(slot, 0), GROOVE_SLOTS - 1)] += 1
    return "".join(BLOCKS[min(count, len(BLOCKS)) - 1] if count else "·" for count in counts)


def _loudness(stretch: Stretch) -> str:
    mean = stretch.mean_velocity
    if mean is None:
        return ""
    return f"{mean:3.0f} {next(name for highest, name in LOUDNESS if mean <= highest)}"
