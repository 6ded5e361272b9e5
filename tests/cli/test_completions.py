"""The completion scripts are up to date, and each shell they are for offers what it should."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from musictool.cli import completions, registry

FOLDER = Path(__file__).resolve().parents[2] / "completions"
REAL = {name: entry for name, entry in registry.COMMANDS.items() if entry.module.startswith("musictool.")}


@pytest.mark.parametrize("shell", completions.SCRIPTS)
def test_script_is_not_stale(shell, monkeypatch):
    missing = [entry.module for entry in REAL.values() if importlib.util.find_spec(entry.module) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not there")
    monkeypatch.setattr(completions, "COMMANDS", REAL)
    name, render = completions.SCRIPTS[shell]
    text = (FOLDER / name).read_text()
    assert text == render(completions.read_verbs()), "run python -m musictool.cli.completions completions/"


@pytest.fixture
def scripts(tmp_path, monkeypatch) -> Path:
    """The scripts for two fake verbs, and a folder to complete in."""
    fakes = {name: registry.COMMANDS[name] for name in ("copy", "fail")}
    fakes["copy"] = fakes["copy"]._replace(summary="Copy bytes: it's [easy].")
    monkeypatch.setattr(completions, "COMMANDS", fakes)
    monkeypatch.setattr("musictool.cli.application.COMMANDS", fakes)
    assert completions.main([str(tmp_path)]) == 0
    (tmp_path / "take.mid").touch()
    return tmp_path


def test_verbs_have_their_options_choices_and_kinds_of_value(monkeypatch):
    monkeypatch.setattr(completions, "COMMANDS", {"copy": registry.COMMANDS["copy"]})
    top, copy = completions.read_verbs()
    options = {name: option for option in copy.options for name in option.names}
    assert options["--colour"].choices == ("red", "green")
    assert options["--log"].choices == ("text", "json")
    assert options["-o"].is_path
    assert options["-o"] is options["--output"]
    assert options["--jobs"].takes_value
    assert not options["--jobs"].is_path
    assert not options["--force"].takes_value
    assert "--version" not in options
    assert "--version" in {name for option in top.options for name in option.names}


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
    assert bash(scripts, "mtk", "") == ["copy", "fail"]
    assert bash(scripts, "mtk", "c") == ["copy"]
    assert "--version" in bash(scripts, "mtk", "--")
    assert bash(scripts, "mtk", "--log", "") == ["text", "json"]
    assert bash(scripts, "mtk", "--log", "=", "j") == ["json"]
    assert bash(scripts, "mtk", "--log", "json", "copy", "--sk") == ["--skip-existing"]
    assert bash(scripts, "mtk", "copy", "--colour", "g") == ["green"]
    assert bash(scripts, "mtk", "copy", "") == []  # readline then offers files
    assert "--shard" not in bash(scripts, "mtk", "fail", "--")


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish")
def test_fish_offers_verbs_options_and_choices(scripts):
    def fish(line: str) -> list[str]:
        command = ["fish", "--no-config", "-c", f"source mtk.fish; complete -C '{line}'"]
        done = subprocess.run(command, cwd=scripts, capture_output=True, text=True, env={"HOME": str(scripts)})
        assert done.stderr == ""
        return [found.split("\t")[0] for found in done.stdout.splitlines()]

    assert fish("mtk ") == ["copy", "fail"]
    assert fish("mtk copy --sk") == ["--skip-existing"]
    assert fish("mtk copy --colour ") == ["green", "red"]
    assert "take.mid" in fish("mtk copy ta")
    assert "take.mid" in fish("mtk copy -o ta")
    assert fish("mtk copy --jobs ta") == []


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


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh")
def test_zsh_offers_verbs_options_and_choices(scripts):
    def zsh(line: str) -> str:
        done = subprocess.run(["zsh", "-f", "-c", ZSH, "zsh", str(scripts), line], cwd=scripts, capture_output=True)
        return done.stdout.decode(errors="replace")

    assert "copy" in (verbs := zsh("mtk "))
    assert "fail" in verbs
    assert "--skip-existing" in zsh("mtk copy --sk")
    assert "--colour=green" in zsh("mtk copy --colour=g")
    assert "take.mid" in zsh("mtk copy ta")
    assert "take.mid" not in zsh("mtk copy --jobs ta")


@pytest.mark.parametrize("shell", [name for name in completions.SCRIPTS if shutil.which(name)])
def test_script_parses(shell, scripts):
    done = subprocess.run([shell, "-n", completions.SCRIPTS[shell][0]], cwd=scripts, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_one_script_is_printed(capsys, scripts):
    assert completions.main(["fish"]) == 0
    assert capsys.readouterr().out == (scripts / "mtk.fish").read_text()
