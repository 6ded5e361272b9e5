"""A saxophone over a backing track with the models that ship, and nothing else: `mtk generate | mtk decode`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.symbolic.midi import read_midi
from tests.commands.codes import items_of

ROOT = Path(__file__).parents[2]
WALTZ = ROOT / "examples" / "waltz.ogg"
SECONDS = 4.0
LOWEST, HIGHEST = 43, 93  # of the saxophones and clarinets that it has heard, with room for what is misheard


@pytest.fixture
def run(tmp_path):
    """Run `mtk ARGUMENT…` with an empty store: its output."""

    def run(*arguments: object, stdin: bytes = b"") -> bytes:
        environment = Environment(io.BytesIO(stdin), io.BytesIO(), io.StringIO(), {"MTK_HOME": str(tmp_path / "home")})
        assert main([str(argument) for argument in arguments], environment) == 0, environment.stderr.getvalue()
        return environment.stdout.getvalue()

    return run


def test_the_model_is_small():
    folder = ROOT / "musictool" / "assets" / "models" / "saxgpt-weimar"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 4.2e6


def test_it_plays_notes_of_a_saxophone_as_long_as_it_is_asked_to(run, tmp_path):
    wanted = ("generate", "-m", "saxgpt-weimar", "--backing", WALTZ, "--duration", SECONDS, "--seed", 1)
    codes = run(*wanted)
    assert run(*wanted) == codes
    assert run(*wanted[:-1], 2) != codes
    run("decode", "-o", tmp_path / "sax.wav", stdin=codes)
    samples, rate = soundfile.read(tmp_path / "sax.wav")
    assert abs(len(samples) / rate - SECONDS) < 0.02
    assert 0.01 < np.sqrt((samples**2).mean()) < 0.5
    (tmp_path / "sax.mid").write_bytes(run("decode", stdin=run("transcribe", tmp_path / "sax.wav")))
    pitch = read_midi(tmp_path / "sax.mid").notes.pitch
    assert len(pitch) >= 4
    assert np.mean((pitch >= LOWEST) & (pitch <= HIGHEST)) > 0.8


def test_what_it_plays_hangs_on_the_backing(run, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(round(SECONDS * 24_000)), 24_000)
    first, second = (
        run("generate", "-m", "saxgpt-weimar", "--backing", backing, "--duration", SECONDS, "--seed", 1)
        for backing in (WALTZ, tmp_path / "silence.wav")
    )
    first_codes, second_codes = (next(iter(items_of(codes).values()))[1] for codes in (first, second))
    assert first_codes.shape == second_codes.shape
    assert (first_codes != second_codes).mean() > 0.5
