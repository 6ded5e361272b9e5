"""The examples that help and README give run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import soundfile

from musictool.cli.application import EXAMPLES
from musictool.cli.registry import COMMANDS, GROUPS
from musictool.symbolic.fluidsynth_player import load_library
from musictool.symbolic.midi import read_midi
from tests.small_models import install_small_mt3

ROOT = Path(__file__).parents[2]
HELPS = {
    "": EXAMPLES,
    **{name: entry.examples for name, entry in GROUPS.items()},
    **{name: getattr(import_module(entry.module), entry.examples) for name, entry in COMMANDS.items()},
}
COMMAND_LINES = dict.fromkeys(line for examples in HELPS.values() for line in examples)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the examples in it, `mtk` on the path, and a store of a small random `mt3`."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "mtk").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m musictool "$@"\n')
    (programs / "mtk").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("MTK_HOME", str(tmp_path / "home"))
    install_small_mt3(tmp_path / "home")
    monkeypatch.delenv("MTK_MODEL_PATH", raising=False)
    shutil.copytree(ROOT / "examples", tmp_path / "desk" / "examples")
    return tmp_path / "desk"


@pytest.mark.parametrize("command", COMMAND_LINES)
def test_the_examples_of_every_help_run(desk, command):
    if "data synth" in command and load_library() is None:
        pytest.skip("needs libfluidsynth")
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=desk, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith(b"mtk: note: ") for line in done.stderr.splitlines())


@pytest.mark.parametrize("name", HELPS)
def test_every_help_ends_with_two_examples(name):
    command = [sys.executable, "-m", "musictool", *name.split(), "--help"]
    help = subprocess.run(command, capture_output=True, text=True).stdout
    assert tuple(line.strip() for line in help.rstrip().splitlines()[-2:]) == HELPS[name]
    assert len(HELPS[name]) == 2


def test_the_python_of_the_readme_runs(desk):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=desk, check=True, timeout=60)


def test_a_recording_in_another_style_is_midi_and_sound(desk):
    for style in ("jazz", "pop"):
        command = ["examples/in_another_style.sh", style, f"out-{style}", "examples/waltz.ogg"]
        subprocess.run(command, cwd=desk, check=True, timeout=120, capture_output=True)
    played = {style: read_midi(desk / f"out-{style}" / "waltz.mid").notes for style in ("jazz", "pop")}
    source = read_midi(ROOT / "examples" / "waltz.mid").notes
    for style, notes in played.items():
        assert len(notes) > 20
        assert notes.end_seconds == pytest.approx(source.end_seconds, abs=3.0)
        assert (desk / f"out-{style}" / f"{style}.mtk").stat().st_size
        sound, rate_hz = soundfile.read(desk / f"out-{style}" / "waltz.wav")
        assert len(sound) / rate_hz >= notes.end_seconds
        assert abs(sound).max() > 0.01
    assert played["jazz"].pitch.tolist() != played["pop"].pitch.tolist()


def test_how_to_call_the_script_is_said_in_one_line(desk):
    done = subprocess.run(["examples/in_another_style.sh", "jazz"], cwd=desk, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "usage: examples/in_another_style.sh STYLE FOLDER RECORDING…\n"
