"""`mtk` as a typer application whose verbs are imported one at a time.

The group lists its verbs from the registry and builds one when it is called, out of a plain function with annotated
parameters. Only documented names of typer are used: older typers stand on click, newer ones carry their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from itertools import pairwise
from typing import Any

import typer
import typer.core

from musictool.cli.environment import Environment, LogFormat
from musictool.cli.exit_status import ExitStatus
from musictool.cli.options import DebugOption, HelpOption, LogOption, QuietOption, VersionOption
from musictool.cli.registry import COMMANDS
from musictool.errors import MusicToolError, UsageError

PROGRAM = "mtk"
EXAMPLES = (
    "mtk tokenize examples/waltz.mid | mtk decode -o waltz-again.mid --force",
    "mtk tokenize examples/waltz.mid | mtk validate",
)

_ParseError: type[Any] = typer.BadParameter.__bases__[0]  # click's UsageError, or that of the typer that carries it


class LazyGroup(typer.core.TyperGroup):
    """Verbs by name, each imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return build_command(cmd_name, self) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in COMMANDS:
            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"run '{PROGRAM} --help' for the commands there are"
            raise UsageError(f"no such command: {args[0]}", hint=hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


def shell(
    show_help: HelpOption = False,
    version: VersionOption = False,
    debug: DebugOption = False,
    quiet: QuietOption = False,
    log: LogOption = None,
) -> None:
    """Small tools for music models. Each reads files or a token stream and writes a token stream, MIDI or audio."""


def build_group() -> LazyGroup:
    """Build the top of the command line; no command's module is imported."""
    app = typer.Typer(name=PROGRAM, cls=LazyGroup, add_completion=False, rich_markup_mode=None)
    app.callback(epilog=_epilog(EXAMPLES), add_help_option=False)(shell)
    group = typer.main.get_command(app)
    assert isinstance(group, LazyGroup)
    for option in group.params:
        _leave_alone_when_absent(option)
    return group


def build_command(name: str, group: LazyGroup) -> Any:
    """Import a verb and build its command.

    Args:
        name: a name in the registry.
        group: its options, but for `--version`, are the verb's too, so that they may stand after it.

    Returns:
        The command, of whichever class this typer has.
    """
    entry = COMMANDS[name]
    module = import_module(entry.module)
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, epilog=_epilog(module.EXAMPLES), add_help_option=False)(getattr(module, entry.attribute))
    command = typer.main.get_command(app)
    command.params.extend(option for option in group.params if option.name != "version")
    return command


def run(arguments: Sequence[str], environment: Environment) -> int:
    """Parse a command line and run it.

    Args:
        arguments: what follows the program's name.
        environment: handed to the command as its context's object.

    Returns:
        The exit status of work that came to its end.

    Raises:
        MusicToolError: wrong usage, and whatever the command raises.
    """
    group = build_group()
    try:
        with group.make_context(PROGRAM, list(arguments), obj=environment) as context:
            result = group.invoke(context)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except MusicToolError:
        _obey_unparsed_flags(arguments, environment)
        raise
    except _ParseError as error:
        _obey_unparsed_flags(arguments, environment)
        raise _usage_error_from(error) from error
    return result if isinstance(result, int) else ExitStatus.DONE


def _leave_alone_when_absent(option: Any) -> None:
    """Keep typer from coercing an option that is not given: typer 0.29 imports pydantic even for that, for 100 ms."""
    process_value = option.process_value
    option.process_value = lambda ctx, value: None if value is None else process_value(ctx, value)


def _epilog(examples: Sequence[str]) -> str:
    """Lay out a help's last lines; the \\b keeps click from filling them."""
    return "\n  ".join(("\b\nExamples:", *examples))


def _usage_error_from(error: Any) -> UsageError:
    """Turn a parser's error into one of ours: the same facts in the same two lines as every other error."""
    command = error.ctx.command_path if error.ctx is not None else PROGRAM
    near = getattr(error, "possibilities", None)
    hint = f"did you mean {near[0]}? " if near else ""
    message = error.message if near else error.format_message()
    message = " ".join(message.split()).rstrip(".")
    return UsageError(
        message[:1].lower() + message[1:], context=command, hint=f"{hint}run '{command} --help' for its options"
    )


def _obey_unparsed_flags(arguments: Sequence[str], environment: Environment) -> None:
    """Look for `--debug` and `--log json` in a line that did not parse, so that its error is reported as asked."""
    line = " ".join(arguments).replace("--log=", "--log ").split()
    environment.debug |= "--debug" in line
    if ("--log", LogFormat.JSON.value) in pairwise(line):
        environment.log_format = LogFormat.JSON
