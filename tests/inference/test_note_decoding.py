"""Probabilities to notes, against a plain loop over pitches and frames, in blocks of any sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musictool.inference.note_decoding import NoteDecoder
from musictool.models.note_tagger import LOWEST_PITCH, PITCHES, NoteThresholds
from musictool.symbolic.notes import Notes

HOP = 1 / 64  # so that frames come out whole
THRESHOLDS = NoteThresholds()
ONSET, FRAME, OFFSET, VELOCITY = range(4)


def decode(*blocks: np.ndarray, thresholds: NoteThresholds = THRESHOLDS) -> Notes:
    decoder = NoteDecoder(thresholds, HOP)
    for block in blocks:
        decoder.feed(block)
    return decoder.notes()


def rows(notes: Notes) -> list[tuple[float, float, int, int]]:
    """Onset and offset in frames, pitch, velocity."""
    columns = (notes.onset_seconds / HOP, notes.offset_seconds / HOP, notes.pitch, notes.velocity)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def peaks(line: np.ndarray, threshold: float) -> dict[int, float]:
    """Frames of one pitch that are higher than two before and no lower than two after; and where their tops are."""
    padded = np.pad(line.astype(float), 2)
    found = {}
    for frame in range(len(line)):
        before, (top, right), after = padded[frame : frame + 2], padded[frame + 2 : frame + 4], padded[frame + 3 :][:2]
        if top >= threshold and (top > before).all() and (top >= after).all():
            left = before[1]
            found[frame] = frame + (right - left) / (2 * (top - min(left, right)))
    return found


def plain(maps: np.ndarray, thresholds: NoteThresholds) -> list[tuple[float, float, int, int]]:
    """Notes as the module's text has them, one pitch and one onset after the other."""
    found = []
    for pitch in range(PITCHES):
        onsets = peaks(maps[ONSET, :, pitch], thresholds.onset)
        offsets = peaks(maps[OFFSET, :, pitch], thresholds.offset)
        is_low = np.append(maps[FRAME, :, pitch] < thresholds.frame, True)
        silent = [frame for frame in range(maps.shape[1]) if is_low[frame] and is_low[frame + 1]]
        for frame, start in onsets.items():
            ends = [
                *(place for other, place in onsets.items() if other > frame),
                *(place for other, place in offsets.items() if other >= frame + 2),
                *(other for other in silent if other >= frame + 2),
                maps.shape[1],
            ]
            velocity = min(max(round(float(maps[VELOCITY, frame, pitch]) * 127), 1), 127)
            found.append((start, min(ends), LOWEST_PITCH + pitch, velocity))
    return sorted(found)


def random_maps(seed: int, frames: int) -> np.ndarray:
    """Maps in which heights are often equal, and onsets, silences and offsets are as rare as in music."""
    generator = np.random.default_rng(seed)
    maps = (generator.integers(0, 9, (4, frames, PITCHES)) / 8).astype(np.float32)
    maps[ONSET] *= generator.random((frames, PITCHES)) < 0.3
    maps[FRAME] = np.maximum(maps[FRAME], generator.random((frames, PITCHES)) < 0.8)
    maps[OFFSET] *= generator.random((frames, PITCHES)) < 0.1
    return maps


def silence(frames: int) -> np.ndarray:
    return np.zeros((4, frames, PITCHES), np.float32)


def one_note(start: int = 5, end: int = 15, frames: int = 30, pitch: int = 60) -> np.ndarray:
    """Maps of a note between two frames."""
    maps = silence(frames)
    line = maps[:, :, pitch - LOWEST_PITCH]
    line[ONSET, start - 1 : start + 2] = 0.5, 1, 0.5
    line[FRAME, start:end] = 1
    line[OFFSET, end - 1 : end + 2] = 0.5, 1, 0.5
    line[VELOCITY, start] = 100 / 127
    return maps


@given(
    st.integers(0, 2**32), st.integers(0, 60), st.lists(st.integers(0, 60), max_size=12), st.sampled_from([0.3, 0.6])
)
@settings(max_examples=40, deadline=None)
def test_blocks_of_any_sizes_give_the_notes_of_a_plain_loop(seed, frames, cuts, threshold):
    maps = random_maps(seed, frames)
    thresholds = NoteThresholds(threshold, threshold, threshold)
    blocks = np.split(maps, sorted(min(cut, frames) for cut in cuts), axis=1)
    got = decode(*blocks, thresholds=thresholds)
    np.testing.assert_allclose(sorted(rows(got)) or np.zeros((0, 4)), plain(maps, thresholds) or np.zeros((0, 4)))
    assert (np.diff(got.onset_seconds) >= 0).all()
    assert (got.onset_seconds >= 0).all()
    assert (got.offset_seconds - got.onset_seconds >= HOP).all()


def test_no_frames_give_no_notes():
    assert len(decode()) == 0
    assert len(decode(silence(0), silence(0))) == 0


def test_silence_gives_no_notes():
    assert len(decode(silence(100))) == 0


def test_a_note_lies_between_its_onset_and_its_offset():
    assert rows(decode(one_note())) == [(5, 15, 60, 100)]


@pytest.mark.parametrize("x", np.linspace(-0.49, 0.49, 9))
@pytest.mark.parametrize("height", [1.0, 0.6])
def test_the_top_of_a_triangle_between_frames_is_found(x, height):
    maps = one_note()
    for head, centre in ((ONSET, 5 + x), (OFFSET, 15 + x)):
        maps[head, :, 60 - LOWEST_PITCH] = height * np.maximum(0, 1 - np.abs(np.arange(30) - centre) / 2)
    maps[FRAME] = 1
    ((start, end, _, _),) = rows(decode(maps))
    assert (start, end) == pytest.approx((5 + x, 15 + x), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "head", "above"), [("onset", ONSET, []), ("offset", OFFSET, [(5, 18)]), ("frame", FRAME, [(5, 7)])]
)
def test_each_threshold_is_of_its_own_map(name, head, above):
    maps = one_note()
    maps[FRAME, 5:18, 60 - LOWEST_PITCH] = 1  # it rings on for a while
    maps[head] *= 0.5
    got = [decode(maps, thresholds=NoteThresholds(**{name: value})) for value in (0.44, 0.56)]
    assert [[(start, end) for start, end, *_ in rows(notes)] for notes in got] == [[(5, 15)], above]


def test_a_peak_that_reaches_its_threshold_exactly_counts():
    maps = one_note()
    maps[ONSET] *= 0.5
    assert len(decode(maps, thresholds=NoteThresholds(onset=0.5))) == 1


def test_one_low_frame_is_no_silence_and_two_are():
    maps = one_note(end=20)
    maps[FRAME, 10] = 0
    assert rows(decode(maps)) == [(5, 20, 60, 100)]
    maps[FRAME, 14:16] = 0
    assert rows(decode(maps)) == [(5, 14, 60, 100)]


def test_a_note_that_begins_anew_ends_there():
    maps = one_note(end=20)
    maps[ONSET, 11:14, 60 - LOWEST_PITCH] = 0.5, 1, 0.5
    maps[VELOCITY, 12] = 1
    assert rows(decode(maps)) == [(5, 12, 60, 100), (12, 20, 60, 127)]


def test_a_note_that_still_sounds_ends_with_the_sound():
    maps = one_note(end=40, frames=60)[:, :30]
    assert rows(decode(maps[:, :12], maps[:, 12:])) == [(5, 30, 60, 100)]


def test_of_onsets_next_to_each_other_the_higher_counts_and_of_equals_the_first():
    maps = one_note()
    maps[ONSET, :, 60 - LOWEST_PITCH] = 0
    maps[ONSET, [5, 7], 60 - LOWEST_PITCH] = 0.8, 0.9
    assert [round(start) for start, *_ in rows(decode(maps))] == [7]
    maps[ONSET, 4:9, 60 - LOWEST_PITCH] = 1
    assert [start for start, *_ in rows(decode(maps))] == [4.5]


def test_the_end_of_one_pitch_is_not_that_of_its_neighbours():
    maps = np.maximum.reduce([one_note(5, 25, pitch=60), one_note(2, 9, pitch=61), one_note(3, 12, pitch=59)])
    assert sorted(rows(decode(maps))) == [(2, 9, 61, 100), (3, 12, 59, 100), (5, 25, 60, 100)]
    maps[OFFSET, :, 59 - LOWEST_PITCH : 61 - LOWEST_PITCH] = 0
    maps[FRAME, :, 59 - LOWEST_PITCH : 61 - LOWEST_PITCH] = 1
    assert sorted(rows(decode(maps))) == [(2, 9, 61, 100), (3, 30, 59, 100), (5, 30, 60, 100)]


@pytest.mark.parametrize(("value", "velocity"), [(0.0, 1), (0.5, 64), (1.0, 127)])
def test_velocity_is_a_share_of_127_and_never_0(value, velocity):
    maps = one_note()
    maps[VELOCITY] = value
    assert decode(maps).velocity.tolist() == [velocity]


def test_the_lowest_and_highest_pitch_are_a_pianos():
    maps = np.maximum(one_note(pitch=21), one_note(pitch=108))
    assert decode(maps).pitch.tolist() == [21, 108]
