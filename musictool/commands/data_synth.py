"""`mtk data synth`: MIDI -> pairs of sound and exact notes, to train on."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musictool.cli.environment import Environment, environment_of
from musictool.cli.exit_status import ExitStatus
from musictool.cli.files import OutputPlan, Source, atomic_writer, expand_inputs
from musictool.cli.options import ForceOption, JobsOption, SeedOption, ShardOption, SkipExistingOption
from musictool.cli.parallel import parallel_map, use_one_thread
from musictool.cli.progress import audio_meter
from musictool.errors import InputError, MusicToolError, UsageError

if TYPE_CHECKING:
    from musictool.training.data.rendering import SynthOptions
    from musictool.training.data.voices import Voice, VoiceTable

EXAMPLES = (
    "mtk data synth examples/waltz.mid -o pairs/ --force",
    "mtk data synth examples/ -o pairs/ --programs 0-7:3,24-25 --excerpt 5 --per-piece 4 --lag 0:30 --augment --force",
)
MIDI_SUFFIXES = (".mid", ".midi", ".kar", ".rmi", ".smf")
PRESETS_A_TASK = 8
MAX_LAG_SECONDS = 0.1  # so that the last notes of an excerpt are heard
_EMPTY = ("nothing-to-play", "silent")  # errors of items that are passed over


def data_synth(
    context: typer.Context,
    inputs: Annotated[list[str], typer.Argument(metavar="MIDI", show_default=False, help="Files, folders or globs.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR/", show_default=False, help="The folder for the pairs.")
    ],
    soundfont: Annotated[
        list[str] | None,
        typer.Option(
            "--soundfont",
            metavar="FILE[:WEIGHT]",
            show_default=False,
            help="SF2 or SF3, any number of times: each item draws. Without it, the one that ships.",
        ),
    ] = None,
    programs: Annotated[
        str,
        typer.Option(
            "--programs",
            metavar="original|LIST",
            help="The instruments of the files, or one drawn for each item: 0-7:6,24-27:2,40 with weights.",
        ),
    ] = "original",
    melody: Annotated[
        bool,
        typer.Option(
            "--melody", "--monophonic", help="Only the melody, or else the highest voice, one note at a time."
        ),
    ] = False,
    excerpt: Annotated[
        float | None,
        typer.Option(
            "--excerpt", min=1.0, metavar="SECONDS", show_default=False, help="A random stretch instead of all."
        ),
    ] = None,
    per_piece: Annotated[int, typer.Option("--per-piece", min=1, metavar="N", help="Items made of each file.")] = 1,
    lag: Annotated[
        str | None,
        typer.Option(
            "--lag",
            metavar="LOW:HIGH",
            show_default=False,
            help="Milliseconds that sound comes after its note, as a hammer does after its key.",
        ),
    ] = None,
    tuning: Annotated[
        float, typer.Option("--tuning", min=0, max=100, metavar="CENTS", help="Detune each item by up to so much.")
    ] = 0.0,
    transpose: Annotated[
        int, typer.Option("--transpose", min=0, max=24, metavar="N", help="Move each item by up to N semitones.")
    ] = 0,
    velocity_spread: Annotated[
        int, typer.Option("--velocity-spread", min=0, max=100, metavar="N", help="Vary velocities by up to about N.")
    ] = 0,
    draw_pedal: Annotated[
        float,
        typer.Option(
            "--draw-pedal",
            min=0,
            max=1,
            metavar="SHARE",
            help="Pedal this share of the items that have no pedal and one ringing instrument, such as a piano.",
        ),
    ] = 0.0,
    drums: Annotated[bool, typer.Option("--drums/--no-drums", help="Keep drums.")] = True,
    augment: Annotated[
        bool, typer.Option("--augment", help="Change the sound by rooms, filters, noise, detuning and codecs.")
    ] = False,
    rate: Annotated[int, typer.Option("--rate", min=8_000, max=48_000, metavar="HZ", help="Sample rate.")] = 16_000,
    leave_out: Annotated[
        str | None,
        typer.Option(
            "--leave-out", metavar="LIST", show_default=False, help="A text file of names, one a line, not to render."
        ),
    ] = None,
    seed: SeedOption = 0,
    jobs: JobsOption = 0,
    shard: ShardOption = None,
    force: ForceOption = False,
    skip_existing: SkipExistingOption = False,
) -> int:
    """Render MIDI files into sound with exact notes beside it.

    Each item is a mono FLAC file and a MIDI file with the notes, programs and pedals that are heard in it, to a
    millisecond. Every voice that may be used is listened to first, and one that is silent or out of tune is left out:
    voices.json tells what was heard, manifest.jsonl how each item was made. Needs libfluidsynth.
    """
    environment = environment_of(context)
    plan = OutputPlan(output if output.endswith("/") else output + "/", ".flac", force, skip_existing)
    use_one_thread()
    from musictool.audio.augment import AugmentConfig
    from musictool.training.data.playing import library
    from musictool.training.data.rendering import SynthOptions
    from musictool.training.data.voices import parse_font, parse_programs

    options = SynthOptions(
        rate_hz=rate,
        programs=parse_programs(programs),
        is_melody=melody,
        excerpt_seconds=excerpt,
        lag_seconds=_parse_lag(lag),
        tuning_cents=tuning,
        transpose=transpose,
        velocity_spread=velocity_spread,
        drawn_pedal_share=draw_pedal,
        has_drums=drums and not melody,
        augmentation=AugmentConfig() if augment else None,
        seed=seed,
    )
    library()  # before anything is read: a missing library is known at once
    fonts = [parse_font(text) for text in soundfont or [_shipped_font()]]
    folder = Path(output)
    manifest = _Manifest(folder / (f"manifest.{shard.number}-of-{shard.count}.jsonl" if shard else "manifest.jsonl"))
    if skip_existing:
        manifest.read()
    else:
        plan.check(manifest.path)
    sources = _without(expand_inputs(inputs, MIDI_SUFFIXES, environment), leave_out, environment)
    numbered = list(enumerate(sources))
    tasks = [
        _Task(source, number * per_piece + take, _item_name(source, take, per_piece))
        for number, source in (shard.take(numbered) if shard else numbered)
        for take in range(per_piece)
    ]
    table = _find_voices(fonts, options, sources, jobs, folder, environment)
    run = _Run(environment, folder, plan, options, table, manifest)
    run.render(tasks, jobs)
    manifest.write([task.name for task in tasks], force=force or skip_existing)
    return ExitStatus.FINDINGS if run.has_failed else ExitStatus.DONE


def _parse_lag(text: str | None) -> tuple[float, float] | None:
    """Read `0:35` milliseconds as seconds."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d*)?):(\d+(?:\.\d*)?)", text)
    low, high = (float(match[1]) / 1e3, float(match[2]) / 1e3) if match else (1.0, 0.0)
    if not low <= high <= MAX_LAG_SECONDS:
        hint = "write LOW:HIGH in milliseconds, 100 at most, as in 0:35"
        raise UsageError(f"no such lag: {text[:40]}", context="--lag", hint=hint)
    return low, high


def _shipped_font() -> str:
    from musictool.symbolic.synthesis import SHIPPED_FONT

    return str(resources.files("musictool") / "assets" / "soundfonts" / SHIPPED_FONT)


def _without(sources: Sequence[Source], leave_out: str | None, environment: Environment) -> list[Source]:
    """The sources whose name, with or without suffix and folders, is not on the list."""
    if leave_out is None:
        return list(sources)
    try:
        lines = Path(leave_out).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"cannot read the list: {reason.lower()}", context=leave_out) from error
    names = {line.strip().casefold() for line in lines if line.strip() and not line.startswith("#")}
    names |= {re.sub(r"\.(midi?|kar|rmi|smf)$", "", name) for name in names}
    kept = [s for s in sources if not {s.name.casefold(), s.name.rpartition("/")[2].casefold()} & names]
    environment.note(f"{len(sources) - len(kept)} of {len(sources)} files are left out", context=leave_out)
    if not kept:
        raise InputError("every file is left out", context=leave_out)
    return kept


def _item_name(source: Source, take: int, per_piece: int) -> str:
    digits = len(str(per_piece - 1))
    return source.name if per_piece == 1 else f"{source.name}-{take:0{digits}}"


# ----------------------------------------------------------------------------------------------------------- voices


def _find_voices(
    fonts: list[tuple[Path, float]],
    options: SynthOptions,
    sources: Sequence[Source],
    jobs: int,
    folder: Path,
    environment: Environment,
) -> VoiceTable:
    """Listen to every voice that may be used, and write down what was heard."""
    from musictool.symbolic.soundfont import SoundFont
    from musictool.training.data.voices import VoiceTable, presets_to_try

    opened = [SoundFont.read(path) for path, _ in fonts]
    digests = {font.path: font.sha256 for font in opened}
    used = set().union(*parallel_map(_programs_of, [source.path for source in sources if source.path], jobs))
    wanted = presets_to_try(used, options.programs, has_drums=options.has_drums)
    tasks = []
    for font in opened:
        there = [preset for preset in wanted if preset in font.presets]
        tasks += [(font.path, there[i : i + PRESETS_A_TASK]) for i in range(0, len(there), PRESETS_A_TASK)]
    voices = [voice for found in parallel_map(_listen, tasks, jobs) for voice in found]
    for voice in voices:
        if voice.fault:
            place = f"{voice.preset.font.name}, preset {voice.preset.bank}:{voice.preset.program}"
            environment.warn(f"a voice is left out: '{voice.name}' {voice.fault}", context=place)
    table = VoiceTable.of(fonts, digests, voices, is_drawn=options.programs is not None)
    with atomic_writer(folder / "voices.json", force=True) as file:
        file.write(json.dumps([_voice_record(voice, digests) for voice in voices], indent=1).encode() + b"\n")
    return table


def _programs_of(path: Path) -> set[tuple[bool, int]]:
    """(is_drum, program) of a file's notes; nothing of one that cannot be read, which fails when it is rendered."""
    from musictool.symbolic.midi import read_midi

    try:
        notes = read_midi(path).notes
    except MusicToolError:
        return set()
    return set(zip(notes.is_drum.tolist(), notes.program.tolist(), strict=True))


def _listen(task: tuple[Path, list[tuple[int, int]]]) -> list[Voice]:
    from musictool.symbolic.soundfont import SoundFont
    from musictool.training.data.tuning import listen

    path, presets = task
    return listen(SoundFont.read(path), presets)


def _voice_record(voice: Voice, digests: dict[Path, str]) -> dict[str, Any]:
    preset = voice.preset
    return {
        "soundfont": preset.font.name,
        "soundfont_sha256": digests[preset.font],
        "bank": preset.bank,
        "program": preset.program,
        "name": voice.name,
        "cents": None if voice.cents is None else round(voice.cents, 1),
        "worst_cents": None if voice.worst_cents is None else round(voice.worst_cents, 1),
        "audible": [min(voice.audible), max(voice.audible)] if voice.audible else None,
        "fault": voice.fault,
    }


# ------------------------------------------------------------------------------------------------------------ items


class _Manifest:
    """The lines of a run's items, by name. Beside it a journal takes each line as it comes, so that a run that was
    killed goes on where it was.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, dict[str, Any]] = {}
        self._journal = path.with_name(f".{path.name}.part")

    def read(self) -> None:
        """Take over what earlier runs wrote; a line that breaks off is none."""
        for path in (self.path, self._journal):
            for line in path.read_text("utf-8", "replace").splitlines() if path.is_file() else ():
                try:
                    record = json.loads(line)
                    self.records[record["name"]] = record
                except (ValueError, KeyError, TypeError):
                    continue

    def add(self, record: dict[str, Any]) -> None:
        """Write an item's line to the journal."""
        self.records[record["name"]] = record
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def write(self, names: Sequence[str], *, force: bool) -> None:
        """Write the lines of these items, in this order, and end the journal."""
        with atomic_writer(self.path, force=force) as file:
            for name in names:
                if name in self.records:
                    file.write(json.dumps(self.records[name]).encode() + b"\n")
        self._journal.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Task:
    """One item to make."""

    source: Source
    number: int
    name: str


@dataclass(frozen=True)
class _Setting:
    """What all items have in common; goes to the worker processes."""

    folder: Path
    options: SynthOptions
    table: VoiceTable
    force: bool


@dataclass(frozen=True)
class _Made:
    """What became of an item: its line in the manifest, or an error."""

    name: str
    record: dict[str, Any] | None
    error: MusicToolError | None = None


def _make(setting: _Setting, task: _Task) -> _Made:
    """Render one item and write its two files."""
    from musictool.training.data.rendering import plan_item, render_item

    try:
        if task.source.error is not None or task.source.path is None:
            raise task.source.error or UsageError("MIDI is read from files", hint="name files or folders")
        plan = plan_item(task.source.path, task.number, setting.options, setting.table)
        item = render_item(plan, setting.options)
        for suffix, content in ((".mid", item.midi), (".flac", item.audio)):
            with atomic_writer(setting.folder / f"{task.name}{suffix}", force=setting.force) as file:
                file.write(content)
    except InputError as error:
        if error.code == "no-space":
            raise
        return _Made(task.name, None, error)
    return _Made(task.name, {"name": task.name, "piece": task.source.name, **item.facts})


class _Run:
    """One run: makes items, hands their lines to the manifest and remembers what went wrong."""

    def __init__(
        self,
        environment: Environment,
        folder: Path,
        plan: OutputPlan,
        options: SynthOptions,
        table: VoiceTable,
        manifest: _Manifest,
    ) -> None:
        self.has_failed = False
        self._environment = environment
        self._plan = plan
        self._manifest = manifest
        self._setting = _Setting(folder, options, table, plan.force or plan.skip_existing)

    def render(self, tasks: Sequence[_Task], jobs: int) -> None:
        """Make the items that are not there yet, and say how many and how fast."""
        open_tasks = list(self._open(tasks))
        excerpt = self._setting.options.excerpt_seconds
        started, empty, count = time.monotonic(), 0, 0
        with audio_meter(
            self._environment, label="synth", total_seconds=excerpt and excerpt * len(open_tasks)
        ) as meter:
            for made in parallel_map(partial(_make, self._setting), open_tasks, jobs):
                if made.record is not None:
                    self._manifest.add(made.record)
                    meter.advance(made.record["duration_seconds"])
                    count += 1
                elif made.error is not None and made.error.code in _EMPTY:
                    empty += 1
                elif made.error is not None:
                    self._fail(made.name, made.error)
            hours, speed = meter.audio_seconds / 3600, meter.audio_seconds / (time.monotonic() - started + 1e-9)
        if empty:
            self._environment.note(f"{empty} items held nothing that the voices can play")
        self._environment.note(f"{count} items, {hours:.2f} hours of sound, {speed:.0f} times real time")

    def _open(self, tasks: Sequence[_Task]) -> Iterator[_Task]:
        """The tasks that are to be done and whose files may be written."""
        for task in tasks:
            try:
                path = self._plan.path_for(task.name)
                assert path is not None
                if (
                    self._plan.is_done(path)
                    and path.with_suffix(".mid").is_file()
                    and task.name in self._manifest.records
                ):
                    continue
                if not self._plan.skip_existing:
                    self._plan.check(path)
            except InputError as error:
                self._fail(task.name, error)
            else:
                yield task

    def _fail(self, name: str, error: MusicToolError) -> None:
        self.has_failed = True
        self._environment.item_failed(name, error)
