"""Commands for the tests of the shell: they do what their name says and nothing else."""

from __future__ import annotations

import os
import signal
import time
import warnings
from enum import Enum
from pathlib import Path

import typer

from musictool.cli.environment import environment_of
from musictool.cli.files import OutputPlan, atomic_writer, expand_inputs
from musictool.cli.options import (
    DeviceOption,
    ForceOption,
    InputsArgument,
    JobsOption,
    ModelOption,
    OutputOption,
    Precision,
    PrecisionOption,
    SeedOption,
    ShardOption,
    SkipExistingOption,
)
from musictool.cli.progress import track
from musictool.errors import FindingsError, InputError, MissingError, MusicToolError

EXAMPLES = (
    "mtk copy a-file-whose-name-is-so-long-that-click-would-have-filled-the-line.txt -o a-copy-of-it.txt --force",
    "mtk copy notes.txt | mtk copy -o again.txt",
)
KIT_EXAMPLES = ("mtk kit copy notes.txt", "mtk kit copy notes.txt -o again.txt")


class Colour(str, Enum):
    RED = "red"
    GREEN = "green"


def copy(
    context: typer.Context,
    inputs: InputsArgument = None,
    output: OutputOption = None,
    force: ForceOption = False,
    skip_existing: SkipExistingOption = False,
    shard: ShardOption = None,
    jobs: JobsOption = 1,
    seed: SeedOption = 0,
    colour: Colour = Colour.RED,
) -> None:
    """Copy bytes."""
    environment = environment_of(context)
    environment.note(f"jobs {jobs} seed {seed} colour {colour.value}")
    plan = OutputPlan(output, ".txt", force=force, skip_existing=skip_existing)
    sources = expand_inputs(inputs, (".txt",), environment)
    failed = []
    with track(shard.take(sources) if shard else sources, environment, label="copy") as tracked:
        for source in tracked:
            try:
                if source.error is not None:
                    raise source.error
                path = plan.path_for(source.name)
                if plan.is_done(path):
                    continue
                data = environment.stdin.read() if source.path is None else source.path.read_bytes()
                with plan.open(path, environment) as file:
                    file.write(data)
            except InputError as error:
                environment.item_failed(source.name, error)
                failed.append(source.name)
    if failed:
        raise FindingsError(f"{len(failed)} of {len(sources)} items failed", context=", ".join(failed))


def use(
    context: typer.Context,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.FP32,
) -> None:
    """Say what would be used."""
    environment_of(context).note(f"{model} {device} {precision.value}")


FAILURES: dict[str, BaseException] = {
    "missing": MissingError("no model", context="tiny", hint="mtk models pull tiny"),
    "plain": MusicToolError("it failed"),
    "two-lines": InputError("a\nb\x1b[31m", context="c\u2028d", hint="e\nf"),
    "memory": MemoryError(),
    "bug": ZeroDivisionError("division by zero"),
    "interrupt": KeyboardInterrupt(),
    "exit": SystemExit("a library gave up"),
    "no-entry": FileNotFoundError(2, "No such file or directory", "lost.mid"),
    "worker-pipe": BrokenPipeError(32, "Broken pipe"),
    "dependency": ModuleNotFoundError("No module named 'symphony'", name="symphony.strings"),
}


def fail(kind: str) -> None:
    """Fail in one of many ways."""
    raise FAILURES[kind]


def findings() -> int:
    """End with findings and without an error."""
    return 1


def pour(context: typer.Context, lines: int = 100_000) -> None:
    """Write many lines."""
    stdout = environment_of(context).stdout
    for number in range(lines):
        stdout.write(b"line %d\n" % number)


def linger(path: Path) -> None:
    """Begin a file, say so with a second one, and wait for a signal."""
    with atomic_writer(path, force=True) as file:
        file.write(b"half")
        file.flush()
        path.with_suffix(".begun").touch()
        time.sleep(60)


def warn() -> None:
    """Warn as a library does."""
    warnings.warn("nobody asked for this backend", UserWarning, stacklevel=1)


def end_by(name: str) -> None:
    """Send the own process a signal."""
    os.kill(os.getpid(), getattr(signal, name))
    time.sleep(60)


def swallow() -> None:
    """Swallow Ctrl-C, as some libraries do while they are imported, and go on; say so when all is cleaned up."""
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    except:  # noqa: E722
        pass
    try:
        time.sleep(60)
    finally:
        try:
            raise OSError
        except OSError:
            time.sleep(2.5)  # longer than it takes to be asked again
        print("clean")
