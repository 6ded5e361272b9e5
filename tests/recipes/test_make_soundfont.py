"""The fonts that the note tagger's recipe makes sound in tune, at once and evenly, and leave out what is misnamed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from musictool.symbolic.notes import Notes
from musictool.symbolic.sampler import Sampler
from musictool.symbolic.soundfont import SoundFont

RECIPE = Path(__file__).parents[2] / "examples" / "recipes" / "note-tagger" / "make_soundfont.py"
RATE_HZ = 44_100
SILENT_SECONDS = 0.03


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_soundfont", RECIPE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


def tone(key: float, seconds: float = 1.5, gain: float = 0.3, falls: bool = True) -> NDArray[np.float32]:
    """A note of six partials after some silence, with a touch of noise that breaks its period."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    frequency = 440 * 2 ** ((key - 69) / 12)
    sound = sum(np.sin(2 * np.pi * n * frequency * t) / n for n in range(1, 7))
    sound = sound * (np.exp(-t / 0.7) if falls else 1.0) + 1e-3 * np.random.default_rng(0).normal(size=len(t))
    return np.concatenate([np.zeros(round(SILENT_SECONDS * RATE_HZ)), gain * sound]).astype(np.float32)


def make(recipe: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str) -> SoundFont:
    out = folder / "made.sf2"
    monkeypatch.setattr(sys, "argv", ["make_soundfont.py", str(folder), str(out), "--name", "Test", *options])
    recipe.main()
    return SoundFont.read(out)


def sound(font: SoundFont, keys: Sequence[int], velocities: Sequence[int], seconds: float = 1.0) -> NDArray[np.float32]:
    """Each note alone, float32 [notes, frames], from the moment that it is struck."""
    onset = np.arange(len(keys)) * 2 * seconds
    ((_, program),) = font.presets
    notes = Notes.of(onset, onset + seconds, np.array(keys), np.array(velocities), program)
    frames = round(2 * seconds * len(keys) * RATE_HZ)
    mono = np.concatenate(list(Sampler(font, RATE_HZ).play(notes, onset + seconds, frames)), 1).mean(0)
    return mono.reshape(len(keys), -1)[:, : round(seconds * RATE_HZ)]


def pitch_hz(mono: NDArray[np.float32]) -> float:
    """The first partial's frequency, by the highest bin of a long spectrum."""
    size = 1 << 20
    power = np.abs(np.fft.rfft(mono * np.hanning(len(mono)), size))
    return float(power.argmax()) * RATE_HZ / size


def decibels(mono: NDArray[np.float32]) -> NDArray[np.float64]:
    return 10 * np.log10(np.mean(mono.astype(np.float64) ** 2, axis=-1))


def test_every_note_is_in_tune_and_sounds_when_it_is_struck(recipe, monkeypatch, tmp_path):
    soundfile.write(tmp_path / "A3.wav", tone(57.4), RATE_HZ)
    soundfile.write(tmp_path / "F#4.flac", tone(65.7), RATE_HZ)
    soundfile.write(tmp_path / "Eb5 soft.ogg", tone(75.1), RATE_HZ)
    font = make(recipe, monkeypatch, tmp_path, "--program", "40")
    ranges = [region.keys for region in font.regions(0, 40)]
    assert [key for low, high in ranges for key in range(low, high + 1)] == list(range(128))
    keys = [50, 57, 61, 62, 66, 70, 75, 80]
    played = sound(font, keys, [100] * len(keys))
    for key, mono in zip(keys, played, strict=True):
        assert abs(1200 * np.log2(pitch_hz(mono) / recipe.pitch_hz(key))) < 2
        assert (np.abs(mono) > 0.1 * np.abs(mono).max()).argmax() < 0.005 * RATE_HZ


def test_layers_meet_at_one_loudness_and_rise_with_velocity(recipe, monkeypatch, tmp_path):
    for name, gain in (("soft", 0.02), ("loud", 0.25)):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "C4.wav", tone(60, gain=gain), RATE_HZ)
        soundfile.write(tmp_path / name / "C5.wav", tone(72, gain=gain / 2), RATE_HZ)
    font = make(recipe, monkeypatch, tmp_path, "--layer", "soft:1-63", "--layer", "loud:64-127")
    velocities = [20, 40, 63, 64, 90, 127]
    middle, high = (decibels(sound(font, [key] * 6, velocities)) for key in (60, 72))
    expected = 40 * np.log10(np.array(velocities) / 127)
    assert middle - middle[-1] == pytest.approx(expected, abs=0.3)
    assert middle - high == pytest.approx(np.full(6, 6.0), abs=1.0)


def test_a_misnamed_silent_or_broken_recording_is_left_out(recipe, monkeypatch, tmp_path, capsys):
    soundfile.write(tmp_path / "C4.wav", tone(60), RATE_HZ)
    soundfile.write(tmp_path / "E4.wav", tone(67), RATE_HZ)
    soundfile.write(tmp_path / "F4.wav", tone(66.2), RATE_HZ)
    soundfile.write(tmp_path / "G4.wav", np.zeros(RATE_HZ), RATE_HZ)
    (tmp_path / "A4.wav").write_bytes(b"no sound")
    (tmp_path / "README.txt").write_text("about these")
    font = make(recipe, monkeypatch, tmp_path)
    assert [sample.name for sample in font.samples] == ["C4"]
    assert capsys.readouterr().out.count("left out: ") == 4


def test_the_recorded_tuning_can_be_kept(recipe, monkeypatch, tmp_path):
    soundfile.write(tmp_path / "C4.wav", tone(60.2), RATE_HZ)
    soundfile.write(tmp_path / "C5.wav", tone(72.8), RATE_HZ)
    font = make(recipe, monkeypatch, tmp_path, "--as-tuned")
    assert [sample.name for sample in font.samples] == ["C4"]
    assert 1200 * np.log2(pitch_hz(sound(font, [60], [100])[0]) / recipe.pitch_hz(60)) == pytest.approx(20, abs=2)


def test_a_looped_note_is_held_steadily_beyond_its_recording(recipe, monkeypatch, tmp_path):
    soundfile.write(tmp_path / "A3.wav", tone(57, 2.5, falls=False), RATE_HZ)
    (held,) = sound(make(recipe, monkeypatch, tmp_path, "--loop"), [57], [100], 8.0)
    levels = decibels(held[: 80 * 4410].reshape(80, 4410))
    assert np.ptp(levels[1:-1]) < 1.0


def test_high_keys_ring_on_where_they_have_no_damper(recipe, monkeypatch, tmp_path):
    for name, key in (("C4", 60), ("C7", 96)):
        soundfile.write(tmp_path / f"{name}.wav", tone(key, falls=False), RATE_HZ)
    font = make(recipe, monkeypatch, tmp_path, "--undamped-from", "90", "--release", "0.5")
    release = {region.sample: region[recipe.RELEASE] for region in font.regions(0, False)}
    assert release == {0: -1200, 1: recipe.timecents(recipe.UNDAMPED_RELEASE_SECONDS)}
