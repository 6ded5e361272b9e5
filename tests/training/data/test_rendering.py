"""A piece as a pair: what is written is what is heard, and an item is a function of its number."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictool.audio.augment import AugmentConfig
from musictool.errors import InputError
from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Notes, Pedals, Score, Track
from musictool.symbolic.soundfont import SoundFont
from musictool.symbolic.synthesis import sounding_until
from musictool.training.data.pairs import PairNotes
from musictool.training.data.playing import BEND, GRID_SECONDS, NOTE_OFF, NOTE_ON
from musictool.training.data.rendering import Item, SynthOptions, plan_item, render_item
from musictool.training.data.tuning import listen
from musictool.training.data.voices import VoiceTable
from tests.symbolic.pitch_measure import measured_pitch_hz
from tests.training.data.fonts import SHIPPED, needs_fluidsynth, sine_font

pytestmark = needs_fluidsynth
PLAIN = SynthOptions()
PLUCKED = Notes.of(np.arange(1, 9) * 0.4, np.arange(1, 9) * 0.4 + 0.25, [60, 64, 67, 72, 60, 64, 67, 72], 100)


def table(font: Path, *programs: int, kits: tuple[int, ...] = ()) -> VoiceTable:
    presets = [(0, program) for program in programs] + [(128, kit) for kit in kits]
    return VoiceTable.of([(font, 1.0)], {font: "digest"}, listen(SoundFont.read(font), presets), is_drawn=False)


@pytest.fixture
def sine(tmp_path) -> VoiceTable:
    """A piano that sounds as a sine from its first moment to its last."""
    return table(sine_font(tmp_path / "sine.sf2"), 0)


@pytest.fixture(scope="module")
def shipped() -> VoiceTable:
    return table(SHIPPED, 0, 40, 73, kits=(0,))


def rendered(folder: Path, score: Score, voices: VoiceTable, options: SynthOptions = PLAIN, number: int = 0) -> Item:
    source = folder / "piece.mid"
    source.write_bytes(write_midi(score))
    return render_item(plan_item(source, number, options, voices), options)


def heard(item: Item) -> tuple[np.ndarray, int]:
    return soundfile.read(io.BytesIO(item.audio), dtype="float32")


def starts(item: Item, silence_seconds: float = 0.05) -> np.ndarray:
    """When sound starts after silence, in seconds."""
    sound, rate = heard(item)
    loud = np.flatnonzero(np.abs(sound) > 0.01 * np.abs(sound).max())
    return loud[np.append(True, np.diff(loud) > silence_seconds * rate)] / rate


def test_sound_is_where_the_notes_are_written(tmp_path, sine):
    generator = np.random.default_rng(0)
    notes = PLUCKED.with_columns(onset_seconds=PLUCKED.onset_seconds + generator.uniform(0, 0.03, 8))
    item = rendered(tmp_path, Score(notes), sine)
    written = read_midi(item.midi).notes
    np.testing.assert_allclose(starts(item), written.onset_seconds, atol=0.0005)
    np.testing.assert_allclose(written.onset_seconds, notes.onset_seconds, atol=0.0012)
    np.testing.assert_allclose(written.offset_seconds, notes.offset_seconds, atol=0.0012)
    for column in ("pitch", "velocity", "program"):
        np.testing.assert_array_equal(getattr(written, column), getattr(notes, column))


def test_sound_lags_behind_its_note_by_what_the_manifest_says(tmp_path, sine):
    options = replace(PLAIN, lag_seconds=(0.0, 0.04))
    notes = PLUCKED.with_columns(velocity=np.full(8, 64, np.int16))  # neither early for loudness nor late for softness
    lags = []
    for number in range(6):
        item = rendered(tmp_path, Score(notes), sine, options, number)
        written = read_midi(item.midi).notes
        apart = starts(item) - written.onset_seconds
        lags.append(item.facts["lag_seconds"])
        assert np.abs(apart - lags[-1]).max() < 0.010
        assert np.median(apart) == pytest.approx(lags[-1], abs=0.004)
        assert np.ptp(apart) > 0.001
    assert max(lags) - min(lags) > 0.01


def test_the_pedal_is_written_and_heard(tmp_path, sine):
    score = Score(Notes.of([0.5, 2.5], [0.7, 2.7], [60, 72]), pedals=Pedals.of([0.6], [1.9], [0]))
    item = rendered(tmp_path, score, sine)
    assert item.facts["pedal"] == "own"
    written = read_midi(item.midi)
    np.testing.assert_allclose(written.notes.offset_seconds, [0.7, 2.7], atol=0.001)
    np.testing.assert_allclose(written.pedals.offset_seconds, [1.9], atol=0.001)
    sound, rate = heard(item)
    level = np.abs(sound).max() * 0.2
    assert np.abs(sound[round(1.8 * rate) : round(1.88 * rate)]).max() > level
    assert np.abs(sound[round(2.0 * rate) : round(2.4 * rate)]).max() < level


def test_what_is_read_back_is_what_was_played(tmp_path, shipped):
    """Release and pedal come out of the MIDI file as they were given to the synthesizer."""
    generator = np.random.default_rng(1)
    onset = np.sort(generator.uniform(0, 20, 150))
    notes = Notes.of(onset, onset + generator.exponential(0.4, 150), generator.integers(40, 90, 150), 70)
    score = Score(notes, pedals=Pedals.of([2.0, 6.0, 12.0], [5.0, 11.0, 19.0], [0, 0, 0]))
    source = tmp_path / "piece.mid"
    source.write_bytes(write_midi(score))
    options = replace(PLAIN, programs={0: 1.0}, excerpt_seconds=10.0, transpose=3, velocity_spread=10)
    for number in range(4):
        plan = plan_item(source, number, options, shipped)
        read = PairNotes.of(read_midi(render_item(plan, options).midi))
        silent = sounding_until(plan.written.notes, plan.written.pedals)
        np.testing.assert_allclose(np.sort(read.silent_seconds), np.sort(silent), atol=1e-4)
        assert read.silent_seconds.max() <= 10.0 + 1e-4
        assert plan.duration_seconds == 10.0


def test_an_item_is_a_function_of_its_number(tmp_path, shipped):
    options = SynthOptions(
        programs={0: 1, 40: 1, 73: 1},
        excerpt_seconds=2.0,
        lag_seconds=(0, 0.03),
        tuning_cents=20,
        transpose=4,
        velocity_spread=10,
        drawn_pedal_share=0.5,
        augmentation=AugmentConfig(),
    )
    first = [rendered(tmp_path, Score(PLUCKED), shipped, options, number) for number in range(4)]
    again = [rendered(tmp_path, Score(PLUCKED), shipped, options, number) for number in (3, 2, 1, 0)][::-1]
    assert first == again
    assert len({item.audio for item in first}) == 4
    other = rendered(tmp_path, Score(PLUCKED), shipped, replace(options, seed=1), 0)
    assert other.audio != first[0].audio


def test_one_program_plays_all_melodic_notes_and_drums_stay(tmp_path, shipped):
    notes = Notes.of(
        [0.1, 0.5, 0.9, 1.3], [0.4, 0.8, 1.2, 1.5], [72, 76, 38, 79], 90, [5, 30, 0, 77], [0, 0, 1, 0], [0, 1, 2, 3]
    )
    score = Score(notes, tuple(Track(str(i)) for i in range(4)))
    item = rendered(tmp_path, score, shipped, replace(PLAIN, programs={73: 1.0}))
    written = read_midi(item.midi).notes
    assert written.program.tolist() == [73, 73, 0, 73]
    assert written.is_drum.tolist() == [False, False, True, False]
    assert (item.facts["programs"], item.facts["has_drums"]) == ([73], True)
    without = rendered(tmp_path, score, shipped, replace(PLAIN, programs={73: 1.0}, has_drums=False))
    assert not read_midi(without.midi).notes.is_drum.any()


def test_original_programs_stay_and_those_without_a_voice_are_left_out_of_both(tmp_path, shipped):
    notes = Notes.of([0.1, 0.5, 0.9], [0.4, 0.8, 1.2], [72, 76, 79], 90, [40, 5, 73], False, [0, 1, 2])
    item = rendered(tmp_path, Score(notes, tuple(Track(str(i)) for i in range(3))), shipped)
    assert read_midi(item.midi).notes.program.tolist() == [40, 73]
    sound, rate = heard(item)
    assert np.abs(sound[round(0.75 * rate) : round(0.85 * rate)]).max() < 0.3 * np.abs(sound).max()


def test_keys_that_the_voice_has_not_are_left_out(tmp_path):
    voices = table(sine_font(tmp_path / "sine.sf2", keys=(60, 100)), 0)
    notes = Notes.of([0.1, 0.5, 0.9], [0.4, 0.8, 1.2], [48, 60, 72])
    item = rendered(tmp_path, Score(notes), voices)
    assert read_midi(item.midi).notes.pitch.tolist() == [60, 72]
    with pytest.raises(InputError, match="nothing that the voices can play"):
        rendered(tmp_path, Score(notes.take(slice(0, 1))), voices)


def test_a_key_is_let_go_before_it_is_struck_again(tmp_path, shipped):
    """However lag moves the notes: otherwise the end of one would silence the next."""
    onset = np.repeat(np.arange(100) * 0.03, 2)
    notes = Notes.of(onset, onset + 0.03, np.tile([60, 64], 100), np.random.default_rng(0).integers(20, 120, 200))
    source = tmp_path / "piece.mid"
    source.write_bytes(write_midi(Score(notes, pedals=Pedals.of([1.0], [2.0], [0]))))
    (channel,) = plan_item(source, 0, replace(PLAIN, lag_seconds=(0.0, 0.02)), shipped).channels
    for pitch in (60, 64):
        rows = np.flatnonzero(np.isin(channel.events.kind, (NOTE_ON, NOTE_OFF)) & (channel.events.number == pitch))
        rows = rows[np.lexsort((channel.events.kind[rows], np.rint(channel.events.seconds[rows] / GRID_SECONDS)))]
        assert channel.events.kind[rows].tolist() == [NOTE_ON, NOTE_OFF] * 100


def test_a_melody_is_played_alone(tmp_path, shipped):
    notes = Notes.of([0.1, 0.1, 0.1, 0.6], [0.5, 0.5, 0.9, 0.9], [60, 64, 76, 79])
    item = rendered(tmp_path, Score(notes), shipped, replace(PLAIN, programs={40: 1.0}, is_melody=True))
    assert read_midi(item.midi).notes.pitch.tolist() == [76, 79]


def test_a_line_is_played_as_a_soloist_plays_and_chords_as_a_section_does(tmp_path, shipped):
    source = tmp_path / "piece.mid"
    source.write_bytes(write_midi(Score(PLUCKED)))
    widest = []
    for is_melody in (True, False):
        options = replace(PLAIN, programs={40: 1.0}, is_melody=is_melody)
        plans = [plan_item(source, number, options, shipped) for number in range(12)]
        bends = [plan.channels[0].events for plan in plans]
        widest.append(max(np.abs(events.value[events.kind == BEND] - 8192).max() for events in bends) / 8192 * 200)
    assert widest[0] > 40
    assert widest[1] < 30
    (piano,) = plan_item(source, 0, replace(PLAIN, programs={0: 1.0}), shipped).channels
    assert set(piano.events.kind.tolist()) == {NOTE_ON, NOTE_OFF}


def test_the_whole_item_is_tuned_as_the_manifest_says(tmp_path, sine):
    notes = Notes.of([0.0], [1.0], [69])
    drawn = []
    for number in range(3):
        item = rendered(tmp_path, Score(notes), sine, replace(PLAIN, tuning_cents=50.0), number)
        sound, rate = heard(item)
        cents = 1200 * np.log2(measured_pitch_hz(sound[rate // 4 : rate * 3 // 4], rate) / 441)
        drawn.append(item.facts["tuning_cents"])
        assert cents == pytest.approx(drawn[-1], abs=1)
    assert max(drawn) - min(drawn) > 5


def test_a_detuned_sound_takes_its_notes_along(tmp_path, sine):
    never = {name: 0.0 for name in AugmentConfig.__dataclass_fields__ if name.endswith("share")}
    config = AugmentConfig(**{**never, "detune_share": 1.0, "detune_cents": 50.0})
    for number in range(3):
        item = rendered(tmp_path, Score(PLUCKED), sine, replace(PLAIN, augmentation=config), number)
        assert item.facts["augmentation"] == ["detune"]
        ratio = item.facts["time_ratio"]
        assert abs(ratio - 1) > 1e-4
        written = read_midi(item.midi).notes.onset_seconds
        np.testing.assert_allclose(written, PLUCKED.onset_seconds * ratio, atol=0.0015)
        np.testing.assert_allclose(starts(item), written, atol=0.001)
        assert item.facts["duration_seconds"] == pytest.approx(len(heard(item)[0]) / 16_000)


def test_some_pieces_without_pedal_get_one(tmp_path, shipped):
    options = replace(PLAIN, programs={0: 1.0}, drawn_pedal_share=0.5)
    items = [rendered(tmp_path, Score(PLUCKED), shipped, options, number) for number in range(12)]
    drawn = [item for item in items if item.facts["pedal"] == "drawn"]
    assert 2 <= len(drawn) <= 10
    assert all(len(read_midi(item.midi).pedals) for item in drawn)
    flute = replace(options, programs={73: 1.0})
    assert all(rendered(tmp_path, Score(PLUCKED), shipped, flute, n).facts["pedal"] == "none" for n in range(6))


def test_the_sound_is_as_the_options_say(tmp_path, shipped):
    for rate in (16_000, 22_050):
        sound, found = heard(rendered(tmp_path, Score(PLUCKED), shipped, replace(PLAIN, rate_hz=rate)))
        assert found == rate
        assert sound.ndim == 1
        assert 10 ** (-12 / 20) - 0.01 <= np.abs(sound).max() <= 10 ** (-1 / 20) + 0.01
        assert PLUCKED.end_seconds < len(sound) / rate < PLUCKED.end_seconds + 2
