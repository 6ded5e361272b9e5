"""Options that mean the same in every command, as types to annotate a parameter with.

    def tokenize(context: typer.Context, inputs: InputsArgument = None, output: OutputOption = None) -> None: ...

Options for a command take their default from the parameter. The shell's own options (`--help`, `--version`, `--debug`,
`--quiet`, `--log`) are added to every command by `application`; they change the environment and reach no function.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Annotated

import typer

from musictool import __version__
from musictool.cli.environment import LogFormat, environment_of
from musictool.cli.files import Shard
from musictool.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")
MAX_LATENCY_SECONDS = 60.0
_SHELL_OPTION = {"is_eager": True, "expose_value": False}


class Precision(str, Enum):
    """How a model's numbers are held; what takes one below `commands` takes the value, a plain word."""

    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"


class SampleFormat(str, Enum):
    """How the samples of raw sound are written, by ffmpeg's names; what takes one below `commands` takes the value."""

    S16LE = "s16le"
    S16BE = "s16be"
    S24LE = "s24le"
    S24BE = "s24be"
    S32LE = "s32le"
    S32BE = "s32be"
    U8 = "u8"
    F32LE = "f32le"
    F32BE = "f32be"
    F64LE = "f64le"
    F64BE = "f64be"


def parse_device(text: str) -> str:
    """Check the form of a device's name; whether there is such a device is known once torch is asked.

    Raises:
        UsageError: it is no name of a device.
    """
    if text not in DEVICES and not re.fullmatch("cuda:[0-9]{1,3}", text):
        raise UsageError(
            f"no such device: {text[:40]}", context="--device", hint="there are auto, cpu, cuda and cuda:N"
        )
    return text


def parse_latency(text: str) -> float:
    """Read how many seconds may be waited.

    Raises:
        UsageError: it is no number of seconds above 0, or far too many.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_LATENCY_SECONDS:
        hint = f"a number of seconds above 0, at most {MAX_LATENCY_SECONDS:g}"
        raise UsageError(f"no such latency: {text[:40]}", context="--latency", hint=hint)
    return seconds


def _show_help(context: typer.Context, value: bool) -> None:
    if value:
        environment_of(context).stdout.write(f"{context.get_help()}\n".encode())
        raise typer.Exit


def _show_version(context: typer.Context, value: bool) -> None:
    if value:
        environment_of(context).stdout.write(f"mtk {__version__}\n".encode())
        raise typer.Exit


def _set_debug(context: typer.Context, value: bool) -> None:
    environment_of(context).debug |= value


def _set_quiet(context: typer.Context, value: bool) -> None:
    environment_of(context).quiet |= value


def _set_log(context: typer.Context, value: LogFormat | None) -> None:
    if value is not None:
        environment_of(context).log_format = LogFormat(value)


InputsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT", show_default=False, help="Files, folders, globs, or - (or nothing) for standard input."
    ),
]
OutputOption = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        show_default=False,
        help="A file, a folder (with a trailing slash), or a template such as 'out/{stem}.mid'. Without it, standard "
        "output.",
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", "-f", help="Replace files that exist.")]
SkipExistingOption = Annotated[
    bool, typer.Option("--skip-existing", help="Leave out inputs whose output exists: goes on with a batch.")
]
ShardOption = Annotated[
    Shard | None,
    typer.Option(
        "--shard",
        parser=Shard.parse,
        metavar="K/N",
        show_default=False,
        help="Take the K-th of N shares of the inputs.",
    ),
]
JobsOption = Annotated[int, typer.Option("--jobs", "-j", min=0, metavar="N", help="Processes; 0 is one for each core.")]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, metavar="N", help="Same inputs, versions, machine and seed give the same bytes.")
]
ModelOption = Annotated[
    str, typer.Option("--model", "-m", metavar="NAME|PATH", help="A preset, a model of the store, or a path.")
]
AdapterOption = Annotated[
    str | None,
    typer.Option(
        "--adapter",
        metavar="PATH",
        show_default=False,
        help="An adapter for the model: a folder that mtk finetune --lora, or peft, wrote.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        parser=parse_device,
        metavar="DEVICE",
        autocompletion=lambda: DEVICES,
        help="auto, cpu, cuda or cuda:N; auto is a GPU where there is one.",
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option("--precision", help="fp32 is exact; bf16 is faster, and near; int8 is for generating on a CPU."),
]
LatencyOption = Annotated[
    float | None,
    typer.Option(
        "--latency",
        parser=parse_latency,
        metavar="SECONDS",
        show_default=False,
        help="How long a codec waits for sound or codes before it works on them: about a second by default, for the "
        "sake of speed; 0.1 for live sound.",
    ),
]
SampleFormatOption = Annotated[
    SampleFormat,
    typer.Option(
        "--sample-format",
        metavar="NAME",
        help="Of --raw: s16le, s24le (3 bytes), s32le, f32le, f64le, the same with be, or u8.",
    ),
]

HelpOption = Annotated[
    bool, typer.Option("--help", "-h", callback=_show_help, help="Show this message and exit.", **_SHELL_OPTION)
]
VersionOption = Annotated[
    bool, typer.Option("--version", callback=_show_version, help="Show the version and exit.", **_SHELL_OPTION)
]
DebugOption = Annotated[
    bool, typer.Option("--debug", callback=_set_debug, help="Show a traceback with an error.", **_SHELL_OPTION)
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", callback=_set_quiet, help="No progress, no notes.", **_SHELL_OPTION)
]
LogOption = Annotated[
    LogFormat | None,
    typer.Option(
        "--log",
        callback=_set_log,
        show_default=False,
        help="Messages as lines of text (default) or one JSON object a line.",
        **_SHELL_OPTION,
    ),
]
