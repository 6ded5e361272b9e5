"""The four factors of a window: what each depends on, and that many windows at once are each window alone."""

import mir_eval
import numpy as np
import pytest

from musictool.symbolic.notes import Notes
from musictool.symbolic.skyline import TOGETHER_SECONDS, skyline_of
from musictool.symbolic.theory import DIMENSIONS, FACTORS, STANDS_SECONDS, WIDTHS, Theory, theory_frames, theory_of


def performance(seed: int = 0, count: int = 400, seconds: float = 30.0) -> Notes:
    """Random notes in random order, some of them together, some without length."""
    random = np.random.default_rng(seed)
    onset = random.uniform(0, seconds, count)
    onset[::5] = onset[1::5]
    length = random.exponential(0.5, count) * (random.random(count) > 0.05)
    return Notes.of(onset, onset + length, random.integers(21, 109, count), random.integers(1, 128, count))


def tune(pitches: list[int], gap: float = 0.25) -> Notes:
    onset = np.arange(len(pitches)) * gap
    return Notes.of(onset, onset + gap, pitches, 80)


def value(theory: Theory, factor: str, name: str) -> float:
    return float(getattr(theory, factor)[..., DIMENSIONS[factor].index(name)])


def distances(one: Theory, other: Theory) -> dict[str, float]:
    pairs = zip(FACTORS, one, other, strict=True)
    return {factor: float(np.abs(mine - yours).max()) for factor, mine, yours in pairs}


def test_every_dimension_has_one_name_of_its_own() -> None:
    assert tuple(DIMENSIONS) == FACTORS == Theory._fields
    assert {factor: len(names) for factor, names in DIMENSIONS.items()} == WIDTHS
    assert all(len(set(names)) == len(names) for names in DIMENSIONS.values())


@pytest.mark.parametrize(("hop", "width"), [(0.25, 1.0), (0.1, 2.0), (1.0, 0.5)])
def test_frames_equal_each_window_alone(hop: float, width: float) -> None:
    notes, count = performance(), 40
    frames = theory_frames(notes, count, hop, width)
    for frame in range(count):
        middle = (frame + 0.5) * hop
        alone = theory_of(notes, middle - width / 2, middle + width / 2)
        for factor, mine, yours in zip(FACTORS, frames, alone, strict=True):
            np.testing.assert_allclose(mine[frame], yours, atol=1e-6, err_msg=f"{factor} of frame {frame}")


def test_a_window_knows_nothing_of_what_lies_outside_it() -> None:
    """Notes that end before or begin after a window are nothing to it, and of others the part outside is not."""
    notes, (start, end) = performance(1), (10.0, 12.0)
    inside = notes.take((notes.onset_seconds < end) & (np.maximum(notes.offset_seconds, 0.01) > start))
    held = inside.onset_seconds < start
    clipped = inside.with_columns(
        onset_seconds=np.where(held, start - 0.2, inside.onset_seconds),
        offset_seconds=np.minimum(inside.offset_seconds, end),
    )
    whole, alone = theory_of(notes, start, end), theory_of(clipped, start, end)
    assert held.any()
    assert len(inside) < len(notes)
    assert max(distances(whole, alone)[factor] for factor in ("harmony", "rhythm")) < 1e-6


def test_an_attack_is_heard_until_the_next_and_for_two_seconds() -> None:
    notes, (start, end) = performance(1), (10.0, 12.0)
    alone = notes.take((notes.onset_seconds >= start - STANDS_SECONDS) & (notes.onset_seconds < end))
    assert len(alone) < len(notes)
    whole = theory_of(notes, start, end).dynamics
    np.testing.assert_array_equal(whole, theory_of(alone, start, end).dynamics)
    assert np.abs(whole - theory_of(notes.take(notes.onset_seconds >= start), start, end).dynamics).max() > 0.01

    before = Notes.of([0.0, 5.0], [0.1, 5.1], 60, [30, 90])
    spans = {(0.0, 1.0): 30, (1.0, 2.0): 30, (2.0, 3.0): 0, (4.0, 5.0): 0, (4.5, 5.5): 90, (6.0, 7.0): 90}
    for span, velocity in spans.items():
        told = theory_of(before, *span)
        assert value(told, "dynamics", "mean") == pytest.approx(velocity / 127), span
        assert value(told, "dynamics", "present") == (velocity > 0)


def test_dynamics_do_not_hear_how_often_keys_are_struck() -> None:
    random = np.random.default_rng(4)
    velocity = random.integers(1, 128, 24)
    halves = Notes.of(np.arange(24) * 0.5, np.arange(24) * 0.5 + 0.4, 60, velocity)
    quarters = Notes.of(np.arange(48) * 0.25, np.arange(48) * 0.25 + 0.2, 60, np.repeat(velocity, 2))
    changed = distances(theory_frames(halves, 48), theory_frames(quarters, 48))
    assert changed["dynamics"] == 0
    assert changed["rhythm"] > 0.1


def test_values_lie_between_minus_one_and_one_and_none_is_filler() -> None:
    """Over music of every kind each dimension takes different values."""
    long = np.arange(12.0) ** 1.1
    scores = [performance(seed, count, 60) for seed, count in enumerate((40, 80, 150, 400, 1500))]
    scores += [Notes.of(long, long + 1.5, low + np.arange(12), 30 + low) for low in (21, 50, 90)]
    scores += [tune([60, 60, 60, 62, 62, 61, 61, 61, 73, 60, 70, 64]), tune([60, 69, 60, 51, 53, 56, 47, 49, 57, 55])]
    frames = [theory_frames(notes, 60, 1.0, width) for notes in scores for width in (1.0, 4.0)]
    for factor, *values in zip(FACTORS, *frames, strict=True):
        table = np.concatenate(values)
        assert table.dtype == np.float32
        assert np.isfinite(table).all()
        assert np.abs(table).max() <= 1 + 1e-6
        constant = [DIMENSIONS[factor][place] for place in np.flatnonzero(np.ptp(table, axis=0) == 0)]
        assert not constant, f"{factor}: {constant}"


def test_a_window_without_notes_is_zeros() -> None:
    assert all(not factor.any() for factor in theory_of(Notes.empty()))
    drums = Notes.of([0.0, 0.5], [0.1, 0.6], [36, 38], is_drum=True)
    assert all(factor.shape == (3, WIDTHS[name]) for name, factor in theory_frames(drums, 3)._asdict().items())
    assert all(not factor.any() for factor in theory_frames(drums, 3))
    silent = theory_frames(tune([60, 64]), 40)
    assert all(factor[0].any() for factor in silent)
    assert not any(factor[20].any() for factor in silent)
    one = theory_of(tune([60]))
    assert [value(one, factor, "present") for factor in FACTORS[1:]] == [1, 1, 1]


def test_each_factor_depends_on_its_own_columns_only() -> None:
    notes, random = performance(2), np.random.default_rng(0)
    whole = theory_of(notes)

    louder = theory_of(notes.with_columns(velocity=random.integers(1, 128, len(notes)).astype(np.int16)))
    changed = distances(whole, louder)
    assert changed.pop("dynamics") > 0.1
    assert not any(changed.values())

    higher = theory_of(notes.with_columns(pitch=(notes.pitch + 1).astype(np.int16)))
    changed = distances(whole, higher)
    assert changed["rhythm"] == changed["dynamics"] == 0
    assert min(changed["harmony"], changed["melody"]) > 0.1

    reversed_ = theory_of(Notes.of(-notes.offset_seconds, -notes.onset_seconds, notes.pitch, notes.velocity))
    assert distances(whole, reversed_)["harmony"] < 0.01

    slower = theory_of(Notes.of(2 * notes.onset_seconds, 2 * notes.offset_seconds, notes.pitch, notes.velocity))
    assert distances(whole, slower)["harmony"] < 0.01
    assert distances(whole, slower)["rhythm"] > 0.1


def test_melody_does_not_hear_when_its_notes_come_nor_what_lies_below() -> None:
    pitches = [72, 74, 76, 77, 74, 79, 72]
    line = theory_of(tune(pitches)).melody
    onset = np.cumsum([0.5, 0.2, 1.0, 0.3, 0.3, 0.7, 0.2])
    swung = Notes.of(onset, onset + 0.15, pitches, 30)
    bass = Notes.of(np.arange(7) * 0.25 - 0.01, np.arange(7) * 0.25 + 0.2, [40, 47, 52, 47, 40, 47, 52])
    np.testing.assert_array_equal(theory_of(swung).melody, line)
    np.testing.assert_array_equal(theory_of(Notes.concatenate([tune(pitches), bass])).melody, line)


def test_names_say_what_the_numbers_mean() -> None:
    chord = theory_of(Notes.of([0, 0, 0, 0], [1, 1, 1, 1], [43, 59, 62, 65], 100))
    assert DIMENSIONS["harmony"][12 + int(np.argmax(chord.harmony[12:120]))] == "chord G:7"
    assert value(chord, "harmony", "chord G:7") == pytest.approx(1)
    assert value(chord, "harmony", "pitch classes") == pytest.approx(4 / 12)
    assert value(chord, "harmony", "pitch class B") == pytest.approx(0.5)
    assert value(chord, "rhythm", "texture") == pytest.approx(2 / 3)

    scale = theory_of(tune([60, 62, 64, 65, 67, 69, 71, 72]))
    assert value(scale, "melody", "up") == 1
    assert value(scale, "melody", "steps") == 1
    assert value(scale, "melody", "direction") == 1
    assert value(scale, "melody", "first pitch class C") == value(scale, "melody", "last pitch class C") == 1
    assert value(scale, "melody", "interval 2") == pytest.approx((5 / 7) ** 0.5)
    assert value(scale, "rhythm", "mean gap") == pytest.approx(0.5)
    assert value(scale, "rhythm", "gap entropy") == pytest.approx(0, abs=0.3)
    assert value(scale, "rhythm", "ratio 1") == pytest.approx(1)

    swell = theory_of(Notes.of(np.arange(5.0), np.arange(5.0) + 0.5, 60, [20, 40, 60, 80, 100]))
    assert value(swell, "dynamics", "slope") == pytest.approx(1, abs=0.03)
    assert value(swell, "dynamics", "median") == pytest.approx(60 / 127)
    assert value(swell, "dynamics", "lower quartile") == pytest.approx(40 / 127)
    assert value(swell, "dynamics", "mean step") == pytest.approx(20 / 32)
    assert value(swell, "dynamics", "velocity 98") == pytest.approx((0.5 * 0.5 / 4.5) ** 0.5)


def test_a_note_held_into_a_window_is_its_melody_and_harmony_but_no_attack() -> None:
    held = theory_of(Notes.of([0.0], [4.0], [71]), 2.0, 3.0)
    assert value(held, "melody", "present") == value(held, "harmony", "pitch class B") == 1
    assert value(held, "melody", "first pitch class B") == 1
    assert not held.rhythm.any()
    assert not held.dynamics.any()


def test_statistics_are_numpys() -> None:
    random = np.random.default_rng(5)
    for count in (3, 8, 21):
        onset = np.arange(count) * 0.3
        velocity, pitch = random.integers(1, 128, count), random.integers(40, 90, count)
        theory = theory_of(Notes.of(onset, onset + 0.2, pitch, velocity))
        seconds = onset[-1] + 0.2
        points = max(16, round(16 * seconds))
        loud = velocity[((np.arange(points) + 0.5) / points * seconds // 0.3).astype(int)]
        for name, share in (("lower quartile", 0.25), ("median", 0.5), ("upper quartile", 0.75)):
            expected = np.sort(loud)[round(share * (len(loud) - 1))] / 127
            assert value(theory, "dynamics", name) == pytest.approx(expected), name
        slope = np.corrcoef(np.arange(len(loud)), loud)[0, 1]
        assert value(theory, "dynamics", "slope") == pytest.approx(slope, abs=1e-6)
        assert value(theory, "dynamics", "mean") == pytest.approx(loud.mean() / 127)
        assert value(theory, "dynamics", "spread") == pytest.approx(min(loud.std() / 32, 1))
        assert value(theory, "dynamics", "accent") == pytest.approx(min((loud.max() - loud.mean()) / 64, 1))
        assert value(theory, "melody", "mean pitch") == pytest.approx((pitch.mean() - 64) / 64)
        assert value(theory, "melody", "range") == pytest.approx(min(np.ptp(pitch) / 36, 1))
        assert value(theory, "melody", "leaps") == pytest.approx(np.mean(abs(np.diff(pitch)) >= 5))
        assert value(theory, "rhythm", "density") == pytest.approx(np.log2(1 + count / (onset[-1] + 0.2)) / 5)


def test_offbeats_held_over_the_beat_are_syncopation() -> None:
    """Eighths at 0.5 s a beat; then the same with every beat but the first of a bar tied over from before."""
    beats = np.arange(0, 8, 0.5)
    straight = Notes.of(beats * 0.5, beats * 0.5 + 0.1, 60)
    tied = np.array([0, 1, 2, 3, 3.5, 4.5, 5, 6, 7, 7.5])
    syncopated = Notes.of(tied * 0.5, tied * 0.5 + 0.1, 60)
    even = Notes.of(np.arange(8) * 0.5, np.arange(8) * 0.5 + 0.1, 60)
    assert value(theory_of(even), "rhythm", "syncopation") == 0
    assert value(theory_of(even), "rhythm", "regularity") > 0.9
    assert value(theory_of(syncopated), "rhythm", "syncopation") > 0.05
    assert value(theory_of(straight), "rhythm", "syncopation") == 0


def test_skyline_is_what_a_walk_through_the_notes_finds() -> None:
    notes = performance(3)
    length = np.maximum(notes.offset_seconds, notes.onset_seconds + 0.01)
    expected = []
    for onset, pitch in zip(notes.onset_seconds, notes.pitch, strict=True):
        around = (notes.onset_seconds < onset + TOGETHER_SECONDS) & (length > onset)
        if notes.pitch[around].max() == pitch:
            expected.append((onset, pitch))
    line = skyline_of(notes)
    assert list(zip(line.onset_seconds, line.pitch, strict=True)) == sorted(expected)
    assert (line.offset_seconds[:-1] <= line.onset_seconds[1:]).all()
    np.testing.assert_array_equal(notes.pitch[line.row], line.pitch)


def test_chord_templates_agree_with_mir_eval() -> None:
    """The notes of mir_eval's chords score 1 as the chord of that name, in every key."""
    names = DIMENSIONS["harmony"][12:120]
    for place, name in enumerate(names):
        root, bitmap, _ = mir_eval.chord.encode(name.removeprefix("chord "))
        pitches = 60 + np.flatnonzero(np.roll(bitmap, root))
        chord = theory_of(Notes.of(np.zeros(len(pitches)), np.ones(len(pitches)), pitches))
        assert chord.harmony[12 + place] == pytest.approx(1), name
