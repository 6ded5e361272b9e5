"""Synthesis: in tune, in time, in bounds, the same twice, and never stuck."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from musictool.errors import InputError, MissingError, UsageError
from musictool.symbolic import fluidsynth_player, synthesis
from musictool.symbolic.notes import Notes, Pedals
from musictool.symbolic.sampler import Sampler
from musictool.symbolic.soundfont import SoundFont
from musictool.symbolic.synthesis import SynthesizerName, describe_synthesizer, render, sounding_until
from tests.symbolic.pitch_measure import cents, key_hz, measured_pitch_hz, partials

RATE_HZ = 44_100
NO_PEDALS = Pedals.of()
TOLERANCE_CENTS = 15.0
AUDIBLE_PARTIAL_DB = -20.0
SYNTHESIZERS = [
    "builtin",
    pytest.param(
        "fluidsynth",
        marks=pytest.mark.skipif(fluidsynth_player.load_library() is None, reason="libfluidsynth is not installed"),
    ),
]

# Programs without a definite pitch: timpani and orchestra hit (a drum's partials; a chord over four octaves), agogo and
# the unpitched percussion and effects that General MIDI ends with. 112 Tinker Bell and 114 Steel Drums have one.
UNPITCHED = frozenset({47, 55, 113, *range(115, 128)})

# Bells: the partials are no multiples of the note they are heard as, so nothing repeats with its period. The partial
# that names the note is measured instead; since the others are inharmonic, none of them lies there in a bell that is an
# octave or any other interval off. A tubular bell is heard an octave below its partial of twice the written pitch.
NAMING_PARTIAL = {9: 1, 14: 2, 98: 1, 112: 1}

# Sounds made of several notes by design, which repeat with the period of their common fundamental: organs with a rank
# an octave below (the church organ's enters in the treble), a lead of two saws a fourth apart (3 : 4) and a pad of
# fifths (2 : 3). The value: how many periods of the written pitch that is. The written pitch must be heard as well.
COMMON_PERIODS = {16: (2,), 17: (2,), 18: (2,), 19: (1, 2), 86: (4,), 97: (2,)}

# Instruments that do not reach down to C3; the plucked section, whose players disagree there by a third of a semitone
# (the strongest partial is 54 cents off, the period 18); and the goblins, whose wobble is slower than the analysis.
KEYS = {9: (72, 84, 96), 11: (60, 72, 84), 13: (72, 84, 96), 45: (60, 72, 84), 101: (60, 72, 84)}
DEFAULT_KEYS = (48, 60, 72)

PERCUSSIVE_PROGRAMS = (0, 6, 8, 12, 13, 24, 36, 45, 105, 115)


def sound_of(notes: Notes, synthesizer: SynthesizerName, **options: object) -> NDArray[np.float32]:
    """A whole rendering, float32 [frames, 2]."""
    return np.concatenate(list(render(notes, NO_PEDALS, synthesizer=synthesizer, **options)))


def busy_piece(seconds: float, notes_per_second: int = 12) -> Notes:
    """Notes of many programs and drums, the same every four seconds."""
    count = round(seconds * notes_per_second)
    onset = np.arange(count) / notes_per_second
    place = np.arange(count) % (4 * notes_per_second)
    return Notes.of(
        onset,
        onset + 0.3 + 0.05 * (place % 7),
        np.where(place % 4 == 3, 36 + place % 20, 40 + (place * 7) % 45),
        50 + (place * 11) % 70,
        np.where(place % 4 == 3, 0, (place * 5) % 112),
        place % 4 == 3,
    )


@pytest.mark.parametrize("synthesizer", SYNTHESIZERS)
@pytest.mark.parametrize("program", [program for program in range(128) if program not in UNPITCHED])
def test_program_sounds_at_the_written_pitch(program: int, synthesizer: SynthesizerName) -> None:
    for key in KEYS.get(program, DEFAULT_KEYS):
        sound = sound_of(Notes.of(0.0, 1.0, key, 100, program), synthesizer, tail_seconds=0)
        sound = sound.mean(1)[RATE_HZ // 10 : RATE_HZ // 10 + 32_768]
        named_hz = key_hz(key) * NAMING_PARTIAL.get(program, 1)
        if program in NAMING_PARTIAL or program in COMMON_PERIODS:
            heard = [hz for hz, _ in partials(sound, RATE_HZ, -AUDIBLE_PARTIAL_DB)]
            off = min(abs(cents(hz, named_hz)) for hz in heard)
            assert off < TOLERANCE_CENTS, f"key {key}: the nearest partial is {off:.1f} cents off"
        if program not in NAMING_PARTIAL:
            measured = measured_pitch_hz(sound, RATE_HZ)
            off = min(abs(cents(measured, key_hz(key) / periods)) for periods in COMMON_PERIODS.get(program, (1,)))
            assert off < TOLERANCE_CENTS, f"key {key}: {measured:.1f} Hz is {off:.1f} cents off"


@pytest.mark.parametrize("interval", [-24, -12, -1, 1, 12, 19, 23])
@pytest.mark.parametrize("program", [0, 48, 56, 73])
def test_pitch_measurement_catches_a_transposed_program(program: int, interval: int) -> None:
    sound = sound_of(Notes.of(0.0, 1.0, 66 + interval, 100, program), "builtin", tail_seconds=0)
    measured = measured_pitch_hz(sound.mean(1)[RATE_HZ // 10 : RATE_HZ // 10 + 32_768], RATE_HZ)
    assert cents(measured, key_hz(66)) == pytest.approx(100 * interval, abs=30)


@pytest.mark.parametrize("synthesizer", SYNTHESIZERS)
def test_every_drum_is_audible(synthesizer: SynthesizerName) -> None:
    for key in range(35, 82):
        sound = sound_of(Notes.of(0.0, 0.05, key, 100, 0, True), synthesizer, tail_seconds=0.2)
        assert np.abs(sound).max() > 0.02, f"drum {key}"


def test_kit_that_the_font_lacks_sounds_as_the_standard_kit() -> None:
    standard, other = (sound_of(Notes.of(0.0, 0.1, 38, 90, kit, True), "builtin", tail_seconds=0.1) for kit in (0, 25))
    np.testing.assert_array_equal(standard, other)


@pytest.mark.parametrize("synthesizer", SYNTHESIZERS)
@pytest.mark.parametrize(
    ("program", "key", "is_drum"),
    [*((program, 72, False) for program in PERCUSSIVE_PROGRAMS), *((0, key, True) for key in (36, 38, 42, 49, 75, 56))],
)
def test_onset_is_where_it_is_written(synthesizer: SynthesizerName, program: int, key: int, is_drum: bool) -> None:
    onset = np.array([0.1037, 1.2501])
    sound = sound_of(Notes.of(onset, onset + 0.2, key, 110, program, is_drum), synthesizer, tail_seconds=0.5)
    envelope = np.abs(sound).max(1)
    for i, written in enumerate(onset):
        first, last = round((written - 0.05) * RATE_HZ), round((written + 0.2) * RATE_HZ)
        before = envelope[first : first + RATE_HZ // 25].max()
        loud = envelope[first:last] > before + 0.02 * envelope[first:last].max()
        heard = (first + int(loud.argmax())) / RATE_HZ
        assert abs(heard - written) < 0.005, f"note {i}: {1000 * (heard - written):.1f} ms late"


@pytest.mark.parametrize("synthesizer", SYNTHESIZERS)
def test_no_program_pitch_or_velocity_hangs(synthesizer: SynthesizerName) -> None:
    keys = [*range(0, 128, 16), 127]
    grid = np.array([(program, key, is_drum) for is_drum in (0, 1) for program in range(128) for key in keys])
    velocity = np.resize([1, 64, 127], len(grid))
    onset = np.arange(len(grid)) * 0.001
    notes = Notes.of(onset, onset + 0.002, grid[:, 1], velocity, grid[:, 0], grid[:, 2].astype(bool))
    sound = sound_of(notes, synthesizer, rate_hz=22_050, tail_seconds=0)
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() <= synthesis.CEILING + 1e-6


def test_sound_does_not_depend_on_the_block_size() -> None:
    notes = busy_piece(3).sorted()
    stop = sounding_until(notes, NO_PEDALS)
    font = SoundFont.read(shipped_font())
    whole, *others = (
        np.concatenate(list(Sampler(font, RATE_HZ).play(notes, stop, 4 * RATE_HZ, frames)), axis=1)
        for frames in (4 * RATE_HZ, 16_384, 1009, 64)
    )
    for other in others:
        assert whole.tobytes() == other.tobytes()


def test_limiter_does_not_depend_on_the_block_size() -> None:
    sound = np.random.default_rng(0).normal(0, 0.6, (2, 30_000)).astype(np.float32)
    sound[:, 9_000:20_000] *= 0.1

    def cut(frames: int) -> Iterator[NDArray[np.float32]]:
        return (sound[:, first : first + frames] for first in range(0, sound.shape[1], frames))

    whole, *others = (
        np.concatenate(list(synthesis._limited(cut(frames), RATE_HZ)), axis=1) for frames in (30_000, 4096, 257, 100)
    )
    assert whole.shape == sound.shape
    for other in others:
        assert whole.tobytes() == other.tobytes()


def test_limiter_keeps_the_ceiling_and_leaves_the_rest_alone() -> None:
    quiet = np.random.default_rng(0).uniform(-0.8, 0.8, (2, 20_000)).astype(np.float32)
    kept = np.concatenate(list(synthesis._limited([quiet], RATE_HZ)), axis=1)
    np.testing.assert_array_equal(kept, quiet)
    loud = quiet.copy()
    loud[:, 5_000:5_010] = 40.0
    limited = np.concatenate(list(synthesis._limited([loud], RATE_HZ)), axis=1)
    assert np.abs(limited).max() <= synthesis.CEILING + 1e-6
    np.testing.assert_array_equal(limited[:, :4_000], quiet[:, :4_000])


@pytest.mark.parametrize("synthesizer", SYNTHESIZERS)
def test_dense_piece_is_finite_and_never_clips(synthesizer: SynthesizerName) -> None:
    onset = np.repeat(np.arange(4) * 0.25, 300)
    pitch = np.resize(np.arange(30, 100), len(onset))
    notes = Notes.of(onset, onset + 0.5, pitch, 127, np.resize([0, 48, 61, 81], len(onset)))
    sound = sound_of(notes, synthesizer, tail_seconds=0.2)
    assert np.isfinite(sound).all()
    assert 0.3 < np.abs(sound).max() <= synthesis.CEILING + 1e-6


@pytest.mark.parametrize("synthesizer", SYNTHESIZERS)
def test_same_notes_give_the_same_bytes(synthesizer: SynthesizerName) -> None:
    notes = busy_piece(2)
    shuffled = notes.take(np.random.default_rng(0).permutation(len(notes)))
    assert sound_of(notes, synthesizer).tobytes() == sound_of(shuffled, synthesizer).tobytes()


@pytest.mark.parametrize("synthesizer", SYNTHESIZERS)
@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_length_and_shape_are_as_promised(synthesizer: SynthesizerName, rate_hz: int) -> None:
    blocks = list(render(Notes.of([0, 1], [0.5, 1.5], 60), NO_PEDALS, rate_hz=rate_hz, synthesizer=synthesizer))
    assert all(block.dtype == np.float32 and block.shape[1] == 2 for block in blocks)
    assert sum(map(len, blocks)) == math.ceil((1.5 + synthesis.DEFAULT_TAIL_SECONDS) * rate_hz)
    silence = np.concatenate(list(render(Notes.empty(), NO_PEDALS, synthesizer=synthesizer, tail_seconds=0.1)))
    assert len(silence) == RATE_HZ // 10
    assert not silence.any()


@pytest.mark.parametrize("synthesizer", SYNTHESIZERS)
def test_end_and_releases_do_not_click(synthesizer: SynthesizerName) -> None:
    """A held organ that is let go, and one that the end cuts off, leave no jump between neighbouring frames."""
    notes = Notes.of([0.0, 0.2], [0.5, 1.0], [45, 52], 100, 19)
    sound = sound_of(notes, synthesizer, tail_seconds=0.1)
    jumps = np.abs(np.diff(sound, axis=0)).max(1)
    held = jumps[round(0.3 * RATE_HZ) : round(0.45 * RATE_HZ)].max()
    assert jumps[round(0.48 * RATE_HZ) :].max() < 1.2 * held
    assert np.abs(sound[-1]).max() < 1e-3


@pytest.mark.parametrize("program", range(0, 128, 5))
@pytest.mark.skipif(fluidsynth_player.load_library() is None, reason="libfluidsynth is not installed")
def test_both_synthesizers_are_as_loud(program: int) -> None:
    notes = Notes.of(0.0, 1.0, 60, 90, program)
    levels = [20 * np.log10(np.sqrt(np.mean(sound_of(notes, name) ** 2))) for name in ("builtin", "fluidsynth")]
    assert abs(levels[0] - levels[1]) < 2.0


def test_memory_does_not_grow_with_length() -> None:
    def peak_bytes(seconds: float) -> int:
        tracemalloc.start()
        for _ in render(busy_piece(seconds), NO_PEDALS, synthesizer="builtin", rate_hz=16_000):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(4)  # what is imported and kept for good
    assert peak_bytes(60) < 1.05 * peak_bytes(15)


def test_pedal_holds_notes_of_its_own_track_until_it_rises() -> None:
    notes = Notes.of([0, 0, 0, 0, 3], [1, 1, 1, 1, 3.5], [60, 61, 62, 38, 63], 64, 0, [0, 0, 0, 1, 0], [0, 1, 0, 0, 0])
    pedals = Pedals.of([0.5, 1.8], [1.9, 2.5], [0, 0])
    np.testing.assert_allclose(sounding_until(notes, pedals), [2.5, 1, 2.5, 1, 3.5])


def test_pedal_lets_go_of_a_string_that_is_struck_again() -> None:
    notes = Notes.of([0.0, 1.0, 1.0, 2.0], [0.5, 1.5, 1.2, 2.5], [60, 60, 64, 60])
    np.testing.assert_allclose(sounding_until(notes, Pedals.of([0.0], [4.0], [0])), [1.0, 2.0, 4.0, 4.0])


def test_pedal_never_shortens_a_note() -> None:
    notes = Notes.of([0.0, 1.0], [3.0, 3.5], [60, 60])
    np.testing.assert_allclose(sounding_until(notes, Pedals.of([2.0], [4.0], [0])), [3.0, 4.0])


@pytest.mark.parametrize("synthesizer", SYNTHESIZERS)
def test_pedal_is_heard(synthesizer: SynthesizerName) -> None:
    notes = Notes.of(0.0, 0.2, 60, 100, 0)
    dry, held = (
        np.concatenate(list(render(notes, pedals, synthesizer=synthesizer, tail_seconds=3)))[RATE_HZ : 2 * RATE_HZ]
        for pedals in (NO_PEDALS, Pedals.of([0.1], [2.5], [0]))
    )
    assert np.abs(held).max() > 20 * np.abs(dry).max()


@pytest.mark.skipif(fluidsynth_player.load_library() is None, reason="libfluidsynth is not installed")
def test_forty_parts_sound_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    programs = np.arange(40)
    notes = Notes.of(np.arange(40) * 0.0, 0.5, 60, 20, programs)
    sound = sound_of(notes, "fluidsynth", tail_seconds=0)
    alone = [sound_of(notes.take(programs == program), "fluidsynth", tail_seconds=0) for program in programs]
    np.testing.assert_allclose(sound, np.sum(alone, axis=0), atol=2e-3)
    assert capfd.readouterr() == ("", "")


def test_channels_hold_one_program_and_no_key_twice() -> None:
    font = SoundFont.read(shipped_font())
    notes = Notes.of([0, 0.5, 1, 2, 2], [1, 1.5, 2, 3, 3], 60, 64, [0, 0, 0, 0, 5]).sorted()
    channels, presets = fluidsynth_player._assign_channels(font, notes, notes.offset_seconds)
    assert channels == [0, 1, 0, 0, 2]
    assert presets == [(0, 0), (0, 0), (0, 5)]
    crowd = Notes.of(np.zeros(600), 1.0, 60, 64, np.arange(600) % 128).sorted()
    channels, presets = fluidsynth_player._assign_channels(font, crowd, crowd.offset_seconds)
    assert len(presets) == fluidsynth_player.MAX_CHANNELS
    assert all(0 <= channel < len(presets) for channel in channels)
    assert {presets[c][1] for c, p in zip(channels, crowd.program) if p == 7} == {7}


def test_auto_falls_back_and_fluidsynth_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fluidsynth_player, "load_library", lambda: None)
    assert describe_synthesizer().name == "builtin"
    with pytest.raises(MissingError, match="libfluidsynth") as caught:
        render(Notes.empty(), NO_PEDALS, synthesizer="fluidsynth")
    assert caught.value.exit_status == 4
    assert "pip install pyfluidsynth" in caught.value.hint


@pytest.mark.parametrize("synthesizer", SYNTHESIZERS)
def test_description_names_synthesizer_and_font(synthesizer: SynthesizerName) -> None:
    info = describe_synthesizer(synthesizer=synthesizer)
    assert info.name == synthesizer
    assert info.version
    assert info.font_name == synthesis.SHIPPED_FONT
    assert info.font_sha256 == SoundFont.read(shipped_font()).sha256


def test_senseless_arguments_are_refused_before_anything_sounds() -> None:
    with pytest.raises(UsageError):
        render(Notes.empty(), NO_PEDALS, rate_hz=100)
    with pytest.raises(UsageError):
        render(Notes.empty(), NO_PEDALS, tail_seconds=-1)
    with pytest.raises(UsageError):
        render(Notes.empty(), NO_PEDALS, synthesizer="moog")  # type: ignore[arg-type]
    with pytest.raises(InputError):
        render(Notes.of(0.0, math.nan, 60), NO_PEDALS)


def shipped_font() -> Path:
    """The path of the font that ships."""
    return synthesis._open_font(None).path
