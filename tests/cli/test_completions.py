"""The completion scripts are up to date, and each shell they are for offers what it should."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from musictool.cli import completions, registry
from musictool.cli.registry import CommandEntry

FOLDER = Path(__file__).resolve().parents[2] / "completions"


def keep(is_kept: Callable[[str, CommandEntry], bool]) -> None:
    """Take other verbs out of the registry; `fake_commands` puts them back."""
    for name, entry in list(registry.COMMANDS.items()):
        if not is_kept(name, entry):
            del registry.COMMANDS[name]


@pytest.mark.parametrize("shell", completions.SCRIPTS)
def test_script_is_not_stale(shell):
    keep(lambda name, entry: entry.module.startswith("musictool."))
    name, render = completions.SCRIPTS[shell]
    text = (FOLDER / name).read_text()
    assert text == render(completions.read_verbs()), "run python -m musictool.cli.completions completions/"


@pytest.fixture
def scripts(tmp_path) -> Path:
    """The scripts for two fake verbs and a group of two, and a folder to complete in."""
    keep(lambda name, entry: name in ("copy", "fail", "kit copy", "kit findings"))
    registry.COMMANDS["copy"] = registry.COMMANDS["copy"]._replace(summary="Copy bytes: it's [easy].")
    assert completions.main([str(tmp_path)]) == 0
    (tmp_path / "take.mid").touch()
    return tmp_path


def options_of(verb: completions.Verb) -> dict[str, completions.Option]:
    return {name: option for option in verb.options for name in option.names}


def test_verbs_have_their_options_choices_and_kinds_of_value():
    keep(lambda name, entry: name in ("copy", "use"))
    top, copy, use = completions.read_verbs().walk()
    options = options_of(copy)
    assert options["--colour"].choices == ("red", "green")
    assert options["--log"].choices == ("text", "json")
    assert options["-o"].is_path
    assert options["-o"] is options["--output"]
    assert options["--jobs"].takes_value
    assert not options["--jobs"].is_path
    assert not options["--force"].takes_value
    assert "--version" not in options
    assert "--version" in options_of(top)
    assert options_of(use)["--device"].choices == ("auto", "cpu", "cuda")
    assert not options_of(use)["--device"].is_path
    assert options_of(use)["--precision"].choices == ("fp32", "bf16", "int8")
    assert options_of(use)["--model"].is_path


def test_a_group_has_the_options_of_the_shell_and_its_verbs():
    keep(lambda name, entry: name.startswith("kit"))
    top, kit, *verbs = completions.read_verbs().walk()
    assert top.verbs == (kit,)
    assert kit.verbs == tuple(verbs)
    assert [verb.name for verb in verbs] == ["kit copy", "kit fail", "kit findings"]
    assert options_of(kit).keys() == options_of(top).keys() - {"--version"}


def bash(folder: Path, *words: str) -> list[str]:
    line = " ".join(f"'{word}'" for word in words)
    script = (
        f"source mtk.bash; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _mtk; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "-uc", script], cwd=folder, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_offers_verbs_options_and_choices(scripts):
    assert bash(scripts, "mtk", "") == ["copy", "fail", "kit"]
    assert bash(scripts, "mtk", "c") == ["copy"]
    assert "--version" in bash(scripts, "mtk", "--")
    assert bash(scripts, "mtk", "--log", "") == ["text", "json"]
    assert bash(scripts, "mtk", "--log", "=", "j") == ["json"]
    assert bash(scripts, "mtk", "--log", "json", "copy", "--sk") == ["--skip-existing"]
    assert bash(scripts, "mtk", "--log", "=", "json", "copy", "--sk") == ["--skip-existing"]
    assert bash(scripts, "mtk", "copy", "--colour", "g") == ["green"]
    assert bash(scripts, "mtk", "copy", "") == []  # readline then offers files
    assert "--shard" not in bash(scripts, "mtk", "fail", "--")


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_completes_in_a_group(scripts):
    assert bash(scripts, "mtk", "kit", "") == ["copy", "findings"]
    assert bash(scripts, "mtk", "kit", "fi") == ["findings"]
    assert "--quiet" in bash(scripts, "mtk", "kit", "--")
    assert "--version" not in bash(scripts, "mtk", "kit", "--")
    assert bash(scripts, "mtk", "--log", "=", "json", "kit", "-q", "copy", "--sk") == ["--skip-existing"]
    assert bash(scripts, "mtk", "kit", "--log", "json", "copy", "x", "--colour", "g") == ["green"]
    assert "--shard" not in bash(scripts, "mtk", "kit", "findings", "--")
    assert bash(scripts, "mtk", "kit", "copy", "") == []
    assert bash(scripts, "mtk", "copy", "kit", "f") == []  # a file named as the group is no group


def fish(folder: Path, line: str) -> list[str]:
    command = ["fish", "--no-config", "-c", f"source mtk.fish; complete -C '{line}'"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={"HOME": str(folder)})
    assert done.stderr == ""
    return [found.split("\t")[0] for found in done.stdout.splitlines()]


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish")
def test_fish_offers_verbs_options_and_choices(scripts):
    assert fish(scripts, "mtk ") == ["copy", "fail", "kit"]
    assert fish(scripts, "mtk --log json ") == ["copy", "fail", "kit"]
    assert "--version" in fish(scripts, "mtk --")
    assert fish(scripts, "mtk copy --sk") == ["--skip-existing"]
    assert fish(scripts, "mtk copy --colour ") == ["green", "red"]
    assert "take.mid" in fish(scripts, "mtk copy ta")
    assert "take.mid" in fish(scripts, "mtk copy -o ta")
    assert fish(scripts, "mtk copy --jobs ta") == []


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish")
def test_fish_completes_in_a_group(scripts):
    assert fish(scripts, "mtk kit ") == ["copy", "findings"]
    assert "--quiet" in (options := fish(scripts, "mtk kit --"))
    assert "--version" not in options
    assert fish(scripts, "mtk --log json kit -q copy --sk") == ["--skip-existing"]
    assert fish(scripts, "mtk kit copy x --colour ") == ["green", "red"]
    assert fish(scripts, "mtk kit findings --sh") == []
    assert "take.mid" in fish(scripts, "mtk kit copy ta")
    assert "findings" not in fish(scripts, "mtk copy kit ")


ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PROMPT=; PS2=; unsetopt zle_bracketed_paste; fpath=($1 \\$fpath); autoload -Uz compinit; compinit -u -D"
zpty -w shell "zstyle ':completion:*' list-colors ''; zstyle ':completion:*' verbose no; LISTMAX=1000; echo rea''dy"
zpty -r shell output '*ready*'
zpty -n -w shell "$2"$'\\t\\t'
sleep 1
zpty -w shell $'\\x15exit'
while zpty -r shell output; do print -rn -- $output; done
"""


def zsh(folder: Path, *lines: str) -> list[str]:
    """What is on the screen after two tabs behind each line; each has a terminal of its own and all wait at once."""

    def complete(line: str) -> str:
        done = subprocess.run(["zsh", "-f", "-c", ZSH, "zsh", str(folder), line], cwd=folder, capture_output=True)
        return done.stdout.decode(errors="replace")

    with ThreadPoolExecutor(len(lines)) as pool:
        return list(pool.map(complete, lines))


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh")
def test_zsh_offers_verbs_options_and_choices(scripts):
    verbs, option, after_option, choice, path, number = zsh(
        scripts,
        "mtk ",
        "mtk copy --sk",
        "mtk --log json copy -q --sk",
        "mtk copy --colour=g",
        "mtk copy ta",
        "mtk copy --jobs ta",
    )
    assert "copy" in verbs
    assert "fail" in verbs
    assert "--skip-existing" in option
    assert "--skip-existing" in after_option
    assert "--colour=green" in choice
    assert "take.mid" in path
    assert "take.mid" not in number


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh")
def test_zsh_completes_in_a_group(scripts):
    verbs, option, after_option, choice, path = zsh(
        scripts,
        "mtk kit ",
        "mtk kit copy --sk",
        "mtk -q kit --log json copy --sk",
        "mtk kit copy --colour=g",
        "mtk kit copy ta",
    )
    assert "findings" in verbs
    assert "fail" not in verbs
    assert "--skip-existing" in option
    assert "--skip-existing" in after_option
    assert "--colour=green" in choice
    assert "take.mid" in path


@pytest.mark.parametrize("shell", [name for name in completions.SCRIPTS if shutil.which(name)])
def test_script_parses(shell, scripts):
    done = subprocess.run([shell, "-n", completions.SCRIPTS[shell][0]], cwd=scripts, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_one_script_is_printed(capsys, scripts):
    assert completions.main(["fish"]) == 0
    assert capsys.readouterr().out == (scripts / "mtk.fish").read_text()
