"""`mtk` as a typer application whose verbs are imported one at a time.

A group lists its verbs from the registry and builds one when it is called, out of a plain function with annotated
parameters; `mtk` itself is a group, and `mtk models` one in it. Only documented names of typer are used: older typers
stand on click, newer ones carry their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from itertools import pairwise
from typing import Any

import typer
import typer.core

from musictool.cli.environment import Environment, LogFormat
from musictool.cli.exit_status import ExitStatus
from musictool.cli.options import DebugOption, HelpOption, LogOption, QuietOption, VersionOption
from musictool.cli.registry import COMMANDS, GROUPS, summaries
from musictool.errors import MusicToolError, UsageError

PROGRAM = "mtk"
EXAMPLES = (
    "mtk tokenize examples/waltz.mid | mtk decode -o waltz-again.mid --force",
    "mtk tokenize examples/waltz.mid | mtk validate",
)

_ParseError: type[Any] = typer.BadParameter.__bases__[0]  # click's UsageError, or that of the typer that carries it


class LazyGroup(typer.core.TyperGroup):
    """Verbs and groups by name, each built when it is asked for.

    Attributes:
        prefix: the words of the command line that lead here, each with a space behind it; nothing for `mtk` itself.
    """

    prefix = ""

    @property
    def summaries(self) -> dict[str, str]:
        return summaries(self.prefix.rstrip())

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.summaries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.summaries:
            return None
        name = self.prefix + cmd_name
        return build_command(name, self) if name in COMMANDS else build_group(name, self)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.summaries:
            near = get_close_matches(args[0], self.summaries, n=1)
            hint = f"run '{ctx.command_path} --help' for the commands there are"
            if near:
                hint = f"did you mean '{self.prefix}{near[0]}'?"
            raise UsageError(f"no such command: {self.prefix}{args[0]}", hint=hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries.items()))


def shell(
    show_help: HelpOption = False,
    version: VersionOption = False,
    debug: DebugOption = False,
    quiet: QuietOption = False,
    log: LogOption = None,
) -> None:
    """Small tools for music models. Each reads files or a token stream and writes a token stream, MIDI or audio."""


def build_shell() -> LazyGroup:
    """Build the top of the command line; no command's module is imported."""
    group = _group(PROGRAM, shell, shell.__doc__, EXAMPLES)
    for option in group.params:
        _leave_alone_when_absent(option)
    return group


def build_group(name: str, parent: LazyGroup) -> LazyGroup:
    """Build a group of verbs; no command's module is imported.

    Args:
        name: a name among the registry's groups.
        parent: its options, but for `--version`, are the group's too, so that they may stand after it.
    """
    entry = GROUPS[name]
    group = _group(name, lambda: None, entry.summary, entry.examples)
    group.prefix = f"{name} "
    _hand_down_options(parent, group)
    return group


def build_command(name: str, parent: LazyGroup) -> Any:
    """Import a verb and build its command.

    Args:
        name: a name in the registry.
        parent: its options, but for `--version`, are the verb's too, so that they may stand after it.

    Returns:
        The command, of whichever class this typer has.
    """
    entry = COMMANDS[name]
    module = import_module(entry.module)
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    word = name.rpartition(" ")[-1]
    epilog = _epilog(getattr(module, entry.examples))
    app.command(word, epilog=epilog, add_help_option=False)(getattr(module, entry.attribute))
    command = typer.main.get_command(app)
    _hand_down_options(parent, command)
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
    group = build_shell()
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


def _group(name: str, callback: Callable[..., None], help: str | None, examples: Sequence[str]) -> LazyGroup:
    app = typer.Typer(name=name, cls=LazyGroup, add_completion=False, rich_markup_mode=None)
    app.callback(help=help, epilog=_epilog(examples), add_help_option=False)(callback)
    group = typer.main.get_command(app)
    assert isinstance(group, LazyGroup)
    return group


def _hand_down_options(parent: LazyGroup, command: Any) -> None:
    command.params.extend(option for option in parent.params if option.name != "version")


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
