"""Completion scripts for bash, zsh and fish, written once from the verbs and their options.

    python -m musictool.cli.completions bash           prints one script
    python -m musictool.cli.completions completions/   writes all three; a test says when they are stale

The scripts hold every verb, option and choice themselves. Dynamic completion would start Python at every press of the
tab key, a tenth of a second before the first word appears; these start nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from musictool.cli.application import PROGRAM, build_command, build_group, shell
from musictool.cli.files import atomic_writer
from musictool.cli.registry import COMMANDS

HEADER = f"# Completion of {PROGRAM}, made by `python -m musictool.cli.completions`; changes here are lost.\n"


@dataclass(frozen=True)
class Option:
    """What a shell needs to know of an option.

    Args:
        names: all of its spellings.
        help: one line without a full stop.
        takes_value: whether a word follows it.
        choices: the words that may.
        is_path: whether that word is a path.
    """

    names: tuple[str, ...]
    help: str
    takes_value: bool = False
    choices: tuple[str, ...] = ()
    is_path: bool = False


@dataclass(frozen=True)
class Verb:
    """A verb with its options and the words, other than paths, that may be its arguments."""

    name: str
    summary: str
    options: tuple[Option, ...]
    words: tuple[str, ...] = ()


def read_verbs() -> list[Verb]:
    """Describe `mtk` itself, under an empty name, and then each verb; this imports every command's module."""
    group = build_group()
    verbs = [_verb("", "", group, shell)]
    for name, entry in COMMANDS.items():
        function = getattr(import_module(entry.module), entry.attribute)
        verbs.append(_verb(name, entry.summary.rstrip("."), build_command(name, group), shell, function))
    return verbs


def render_bash(verbs: Sequence[Verb]) -> str:
    """Write the script that bash sources; bash 3.2 will do."""
    values, words = [], []
    for verb in verbs:
        for option in verb.options:
            if option.choices:
                pattern = " | ".join(f'"{verb.name} {name}"' for name in option.names)
                values.append(f'        {pattern}) words="{" ".join(option.choices)}" ;;')
        names = " ".join(name for option in verb.options for name in option.names)
        first = " ".join(verb.words or [other.name for other in verbs if other.name and not verb.name])
        words.append(f'                "{verb.name}") words="{first}" options="{names}" ;;')
    skipped = " | ".join(name for option in verbs[0].options if option.takes_value for name in option.names)
    choices_of_options, words_of_verbs = "\n".join(values), "\n".join(words)
    return f"""{HEADER}
_{PROGRAM}() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}} verb="" words="" options="" i
    if [[ $current == "=" ]]; then
        current=""
    elif [[ $previous == "=" ]]; then
        previous=${{COMP_WORDS[COMP_CWORD - 2]}}
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
            {skipped}) ((i++)) ;;
            -*) ;;
            *) verb=${{COMP_WORDS[i]}} && break ;;
        esac
    done
    case "$verb $previous" in
{choices_of_options}
        *)
            case $verb in
{words_of_verbs}
            esac
            [[ $current == -* ]] && words=$options
            ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _{PROGRAM} {PROGRAM}
"""


def render_zsh(verbs: Sequence[Verb]) -> str:
    """Write the function that zsh loads from its `fpath`, or sources."""
    top, *rest = verbs
    described = "\n".join(f"                {_quoted(f'{verb.name}:{verb.summary}')}" for verb in rest)
    cases = "\n".join(
        f"                {verb.name})\n                    _arguments -S \\\n{_zsh_options(verb, 24)} \\\n"
        f"                        {_zsh_arguments(verb)}\n                    ;;"
        for verb in rest
    )
    return f"""#compdef {PROGRAM}
{HEADER}
_{PROGRAM}() {{
    local curcontext="$curcontext" state line
    typeset -A opt_args
    _arguments -C -S \\
{_zsh_options(top, 8)} \\
        '1: :->verb' '*:: :->arguments'
    case $state in
        verb)
            local -a verbs=(
{described}
            )
            _describe -t commands command verbs
            ;;
        arguments)
            case $line[1] in
{cases}
            esac
            ;;
    esac
}}

if [[ $funcstack[1] == _{PROGRAM} ]]; then
    _{PROGRAM} "$@"
else
    compdef _{PROGRAM} {PROGRAM}
fi
"""


def render_fish(verbs: Sequence[Verb]) -> str:
    """Write the script that fish loads."""
    lines = []
    for verb in verbs:
        condition = f"__fish_seen_subcommand_from {verb.name}" if verb.name else "__fish_use_subcommand"
        if verb.name:
            summary = _quoted(verb.summary)
            lines.append(f"\ncomplete -c {PROGRAM} -n __fish_use_subcommand -f -a {verb.name} -d {summary}")
        if verb.words:
            lines.append(f"complete -c {PROGRAM} -n '{condition}' -a {_quoted(' '.join(verb.words))}")
        for option in verb.options:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            value = ""
            if option.takes_value:
                value = " -r -F" if option.is_path else " -x"
            if option.choices:
                value += f" -a {_quoted(' '.join(option.choices))}"
            lines.append(f"complete -c {PROGRAM} -n '{condition}' {names}{value} -d {_quoted(option.help)}")
    return HEADER + "\n" + "\n".join(lines) + "\n"


SCRIPTS: dict[str, tuple[str, Callable[[Sequence[Verb]], str]]] = {
    "bash": (f"{PROGRAM}.bash", render_bash),
    "zsh": (f"_{PROGRAM}", render_zsh),
    "fish": (f"{PROGRAM}.fish", render_fish),
}


def _verb(name: str, summary: str, command: Any, *functions: Callable[..., Any]) -> Verb:
    hints = {key: hint for function in functions for key, hint in get_type_hints(function).items()}
    options: list[Option] = []
    words: list[str] = []
    for parameter in command.params:
        types = set(_types_in(hints[parameter.name]))
        choices = tuple(word for kind in types for word in _choices_of(kind))
        if parameter.param_type_name == "argument":
            words += choices
        elif not parameter.hidden:
            takes_value = not parameter.is_flag
            text = (parameter.help or "").split(". ")[0].rstrip(".")
            names = (*parameter.opts, *parameter.secondary_opts)
            options.append(Option(names, text, takes_value, choices, takes_value and bool(types & {str, Path})))
    return Verb(name, summary, tuple(options), tuple(words))


def _types_in(hint: Any) -> Iterator[Any]:
    """Look into unions and lists for the types of the words they hold."""
    if get_origin(hint) is Literal or not get_args(hint):
        yield hint
    else:
        for argument in get_args(hint):
            yield from _types_in(argument)


def _choices_of(kind: Any) -> tuple[str, ...]:
    if get_origin(kind) is Literal:
        return tuple(str(choice) for choice in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return tuple(str(member.value) for member in kind)
    return ()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _zsh_options(verb: Verb, indent: int) -> str:
    return " \\\n".join(" " * indent + _zsh_option(option) for option in verb.options)


def _zsh_option(option: Option) -> str:
    text = option.help.translate({ord(mark): f"\\{mark}" for mark in "[]:\\"})
    value = ""
    if option.takes_value:
        action = f"({' '.join(option.choices)})" if option.choices else "_files" if option.is_path else " "
        value = f":value:{action}"
    names = [name + ("" if not option.takes_value else "=" if name.startswith("--") else "+") for name in option.names]
    if len(names) == 1:
        return _quoted(f"{names[0]}[{text}]{value}")
    return f"'({' '.join(option.names)})'{{{','.join(names)}}}{_quoted(f'[{text}]{value}')}"


def _zsh_arguments(verb: Verb) -> str:
    return f"'*:argument:({' '.join(verb.words)})'" if verb.words else "'*:input:_files'"


def main(arguments: Sequence[str]) -> int:
    """Print the script of a shell, or write those of all shells to a folder."""
    verbs = read_verbs()
    if arguments and arguments[0] in SCRIPTS:
        sys.stdout.write(SCRIPTS[arguments[0]][1](verbs))
        return 0
    for name, render in SCRIPTS.values():
        with atomic_writer(Path(*arguments[:1] or ["completions"], name), force=True) as file:
            file.write(render(verbs).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
