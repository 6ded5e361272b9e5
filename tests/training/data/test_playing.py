"""libfluidsynth under a performance: exact moments, tuning, expression, and no memory of what was played before."""

from __future__ import annotations

import numpy as np
import pytest

from musictool.errors import InputError, MissingError
from musictool.symbolic import fluidsynth_player
from musictool.training.data.expression import expression_events
from musictool.training.data.playing import (
    BEND,
    CONTROL,
    GRID_SECONDS,
    NOTE_OFF,
    NOTE_ON,
    Channel,
    Events,
    on_grid,
    play_channels,
)
from musictool.training.data.voices import Preset
from tests.symbolic.pitch_measure import measured_pitch_hz
from tests.training.data.fonts import SHIPPED, needs_fluidsynth, sine_font

RATE = 16_000


def events(*rows: tuple[float, int, int, int]) -> Events:
    seconds, *others = zip(*rows)
    return Events(np.array(seconds), *(np.array(column) for column in others))


NOTE = events((0.0, NOTE_ON, 69, 100), (0.9, NOTE_OFF, 69, 0))


@needs_fluidsynth
@pytest.mark.parametrize("onset", [0.1, 0.502, 1.234])
def test_a_note_sounds_at_its_moment(tmp_path, onset):
    preset = Preset(sine_font(tmp_path / "a.sf2"), 0, 0)
    rows = events((onset, NOTE_ON, 69, 127), (onset + 0.2, NOTE_OFF, 69, 0))
    sound = play_channels([Channel(preset, rows)], 2.0, 32_000)
    assert len(sound) == 64_000
    loud = np.flatnonzero(np.abs(sound) > 0.002) / 32_000
    assert loud[0] == pytest.approx(onset, abs=0.001)
    assert loud[-1] == pytest.approx(onset + 0.2, abs=0.03)


@needs_fluidsynth
@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
def test_any_rate_has_the_same_moments_and_pitch(tmp_path, rate):
    preset = Preset(sine_font(tmp_path / "a.sf2"), 0, 0)
    sound = play_channels([Channel(preset, events((0.5, NOTE_ON, 69, 127)))], 1.0, rate)
    assert len(sound) == rate
    assert np.flatnonzero(np.abs(sound) > 0.002)[0] / rate == pytest.approx(0.5, abs=0.001)
    assert measured_pitch_hz(sound[-rate // 4 :], rate) == pytest.approx(441, rel=1e-3)


@needs_fluidsynth
@pytest.mark.parametrize("cents", [-40.0, 0.0, 7.5, 99.0])
def test_a_channel_is_tuned_to_a_cent(tmp_path, cents):
    preset = Preset(sine_font(tmp_path / "a.sf2"), 0, 0)
    sound = play_channels([Channel(preset, NOTE, cents)], 0.9, RATE)
    heard = 1200 * np.log2(measured_pitch_hz(sound[RATE // 4 :], RATE) / 441)
    assert heard == pytest.approx(cents, abs=1)


@needs_fluidsynth
def test_bends_and_expression_are_heard(tmp_path):
    preset = Preset(sine_font(tmp_path / "a.sf2"), 0, 0)
    rows = events((0.0, NOTE_ON, 69, 127), (0.5, BEND, 0, 8192 + 4096), (1.0, CONTROL, 11, 40))
    sound = play_channels([Channel(preset, rows)], 1.5, RATE)
    plain, bent, soft = sound[2000:7000], sound[9000:15000], sound[17000:]
    assert 1200 * np.log2(measured_pitch_hz(bent, RATE) / measured_pitch_hz(plain, RATE)) == pytest.approx(100, abs=2)
    assert np.abs(soft).max() < 0.5 * np.abs(bent).max()


@needs_fluidsynth
def test_a_performance_depends_on_nothing_that_was_played_before():
    piano = Channel(Preset(SHIPPED, 0, 0), NOTE, 11.0)
    violin = Channel(Preset(SHIPPED, 0, 40), events((0.1, NOTE_ON, 60, 80), (0.2, BEND, 0, 12_000)), -30.0)
    first = play_channels([piano], 1.0, RATE)
    both = play_channels([violin, piano], 1.0, RATE)
    again = play_channels([piano], 1.0, RATE)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, both)


@needs_fluidsynth
def test_channels_add_up():
    channels = [Channel(Preset(SHIPPED, 0, program), NOTE) for program in (0, 73)]
    both = play_channels(channels, 1.0, RATE)
    np.testing.assert_allclose(both, sum(play_channels([channel], 1.0, RATE) for channel in channels), atol=1e-5)


@needs_fluidsynth
def test_a_font_that_is_none_is_an_input_error(tmp_path):
    (tmp_path / "a.sf2").write_bytes(b"RIFF")
    with pytest.raises(InputError, match="cannot read"):
        play_channels([Channel(Preset(tmp_path / "a.sf2", 0, 0), NOTE)], 1.0, RATE)


def test_without_libfluidsynth_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(fluidsynth_player, "load_library", lambda: None)
    with pytest.raises(MissingError) as caught:
        play_channels([Channel(Preset(SHIPPED, 0, 0), NOTE)], 1.0, RATE)
    assert "pip install pyfluidsynth" in caught.value.hint


def test_moments_are_moved_by_half_a_step_at_most():
    seconds = np.random.default_rng(0).uniform(0, 100, 1000)
    assert np.abs(on_grid(seconds) - seconds).max() <= GRID_SECONDS / 2 + 1e-12


@pytest.mark.parametrize("is_solo", [True, False])
def test_expression_is_within_what_controllers_can_say(is_solo):
    for seed in range(20):
        made = expression_events(np.arange(6.0), 6.0, np.random.default_rng(seed), is_solo=is_solo)
        again = expression_events(np.arange(6.0), 6.0, np.random.default_rng(seed), is_solo=is_solo)
        np.testing.assert_array_equal(made.value, again.value)
        loudness, bend = made.value[made.kind == CONTROL], made.value[made.kind == BEND]
        assert set(made.number[made.kind == CONTROL].tolist()) == {11}
        assert 80 <= loudness.min() <= loudness.max() <= 127
        assert np.abs(bend - 8192).max() < 8192
        assert made.seconds[made.kind == BEND][0] == made.seconds[made.kind == CONTROL][0] == 0


def swing(seed: int, low: float, high: float, *, is_solo: bool) -> float:
    """How fast pitch moves, cents a step, from `low` to `high` seconds after the onsets of notes a second apart."""
    made = expression_events(np.arange(6.0), 6.0, np.random.default_rng(seed), is_solo=is_solo)
    rows = made.kind == BEND
    times = np.arange(0, 6, 0.02) + 1e-6
    bend = made.value[rows][np.searchsorted(made.seconds[rows], times, side="right") - 1]
    is_within = (times % 1 >= low) & (times % 1 < high)
    return float(np.abs(np.diff(bend, append=bend[-1]))[is_within].mean()) / 8192 * 200


def test_a_solo_voice_reaches_its_note_then_holds_it_then_vibrates_and_a_section_is_steadier():
    start, held, late = (
        np.mean([swing(seed, low, high, is_solo=True) for seed in range(40)])
        for low, high in ((0.0, 0.06), (0.1, 0.16), (0.6, 0.94))
    )
    section = np.mean([swing(seed, 0.6, 0.94, is_solo=False) for seed in range(40)])
    assert held < start
    assert held < 0.7 * late
    assert section < 0.5 * late
