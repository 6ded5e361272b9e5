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

from musictool.cli.application import PROGRAM, LazyGroup, build_shell, shell
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
    """A verb, a group of verbs, or `mtk` itself.

    Args:
        name: the words that lead here; none for `mtk` itself.
        summary: one line without a full stop.
        options: what may follow it with a dash.
        words: its arguments, other than paths.
        verbs: what a group holds.
    """

    name: str
    summary: str
    options: tuple[Option, ...]
    words: tuple[str, ...] = ()
    verbs: tuple[Verb, ...] = ()

    @property
    def last_word(self) -> str:
        return self.name.rpartition(" ")[-1]

    def walk(self) -> Iterator[Verb]:
        """Give this verb and then all that are below it."""
        yield self
        for verb in self.verbs:
            yield from verb.walk()


def read_verbs() -> Verb:
    """Describe `mtk` itself and what is below it; this imports every command's module."""
    return _verb("", "", build_shell())


def render_bash(top: Verb) -> str:
    """Write the script that bash sources; bash 3.2 will do."""
    values, words = [], []
    for verb in top.walk():
        for option in verb.options:
            if option.choices:
                pattern = " | ".join(f'"{verb.name} {name}"' for name in option.names)
                values.append(f'        {pattern}) words="{" ".join(option.choices)}" ;;')
        names = " ".join(name for option in verb.options for name in option.names)
        first = " ".join(verb.words or [other.last_word for other in verb.verbs])
        words.append(f'                "{verb.name}") words="{first}" options="{names}" ;;')
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
            {" | ".join(_options_with_value(top))})
                ((i++))
                [[ ${{COMP_WORDS[i]}} == "=" ]] && ((i++))
                ;;
            -*) ;;
            *)
                verb+=${{verb:+ }}${{COMP_WORDS[i]}}
                [[ "|{"|".join(_groups(top))}|" == *"|$verb|"* ]] || break
                ;;
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


def render_zsh(top: Verb) -> str:
    """Write the function that zsh loads from its `fpath`, or sources."""
    functions = "\n".join(_zsh_function(verb) for verb in top.walk() if verb.verbs)
    return f"""#compdef {PROGRAM}
{HEADER}
{functions}
if [[ $funcstack[1] == _{PROGRAM} ]]; then
    _{PROGRAM} "$@"
else
    compdef _{PROGRAM} {PROGRAM}
fi
"""


def render_fish(top: Verb) -> str:
    """Write the script that fish loads."""
    lines = []
    for verb in top.walk():
        start = f"complete -c {PROGRAM} -n '__{PROGRAM}_is_at \"{verb.name}\"'"
        lines.append("")
        for other in verb.verbs:
            lines.append(f"{start} -f -a {other.last_word} -d {_quoted(other.summary)}")
        if verb.words:
            lines.append(f"{start} -a {_quoted(' '.join(verb.words))}")
        for option in verb.options:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            value = ""
            if option.takes_value:
                value = " -r -F" if option.is_path else " -x"
            if option.choices:
                value += f" -a {_quoted(' '.join(option.choices))}"
            lines.append(f"{start} {names}{value} -d {_quoted(option.help)}")
    return (
        f"""{HEADER}
function __{PROGRAM}_is_at -a wanted -d "Whether the words before the cursor lead to a verb"
    set -l words (commandline -opc)
    set -l verb
    set -l is_value 0
    for word in $words[2..]
        if test $is_value = 1
            set is_value 0
        else if contains -- $word {" ".join(_options_with_value(top))}
            set is_value 1
        else if not string match -q -- '-*' $word
            set -a verb $word
            contains -- "$verb" {" ".join(map(_quoted, _groups(top)))}; or break
        end
    end
    test "$verb" = "$wanted"
end
"""
        + "\n".join(lines)
        + "\n"
    )


SCRIPTS: dict[str, tuple[str, Callable[[Verb], str]]] = {
    "bash": (f"{PROGRAM}.bash", render_bash),
    "zsh": (f"_{PROGRAM}", render_zsh),
    "fish": (f"{PROGRAM}.fish", render_fish),
}


def _verb(name: str, summary: str, command: Any) -> Verb:
    """Describe a built command or group, and what is below it."""
    verbs = []
    if isinstance(command, LazyGroup):
        for word, line in command.summaries.items():
            verbs.append(_verb(command.prefix + word, line.rstrip("."), command.get_command(None, word)))
    hints = get_type_hints(shell, include_extras=True)
    if name in COMMANDS:
        entry = COMMANDS[name]
        hints |= get_type_hints(getattr(import_module(entry.module), entry.attribute), include_extras=True)
    options: list[Option] = []
    words: list[str] = []
    for parameter in command.params:
        types = list(_types_in(hints[parameter.name]))
        choices = tuple(word for kind in types for word in _choices_of(kind))
        if parameter.param_type_name == "argument":
            words += choices
        elif not parameter.hidden:
            takes_value = not parameter.is_flag
            text = (parameter.help or "").split(". ")[0].rstrip(".")
            names = (*parameter.opts, *parameter.secondary_opts)
            is_path = takes_value and not choices and (str in types or Path in types)
            options.append(Option(names, text, takes_value, choices, is_path))
    return Verb(name, summary, tuple(options), tuple(words), tuple(verbs))


def _options_with_value(top: Verb) -> list[str]:
    """The options that may stand before a verb with a word behind them."""
    return [name for option in top.options if option.takes_value for name in option.names]


def _groups(top: Verb) -> list[str]:
    return [verb.name for verb in top.walk() if verb.name and verb.verbs]


def _types_in(hint: Any) -> Iterator[Any]:
    """Look into unions and lists for the types of the words they hold, and what typer is told of them."""
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
    autocompletion = getattr(kind, "autocompletion", None)
    return tuple(autocompletion()) if autocompletion else ()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _zsh_function(group: Verb) -> str:
    """Write the function that completes what is in a group."""
    described = "\n".join(f"                {_quoted(f'{verb.last_word}:{verb.summary}')}" for verb in group.verbs)
    cases = "\n".join(
        f"                {verb.last_word})\n{_zsh_case(verb)}\n                    ;;" for verb in group.verbs
    )
    return f"""{_zsh_name(group)}() {{
    local curcontext="$curcontext" state line
    typeset -A opt_args
    _arguments -C -S -A "-*" \\
{_zsh_options(group, 8)} \\
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
"""


def _zsh_case(verb: Verb) -> str:
    if verb.verbs:
        return f"                    {_zsh_name(verb)}"
    options, arguments = _zsh_options(verb, 24), _zsh_arguments(verb)
    return f"                    _arguments -S \\\n{options} \\\n                        {arguments}"


def _zsh_name(group: Verb) -> str:
    return "_".join(["", PROGRAM, *group.name.split()])


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
