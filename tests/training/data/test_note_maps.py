"""The maps that notes become, and the notes that the decoder makes of them again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musictool.inference.note_decoding import NoteDecoder
from musictool.models.note_tagger import HEADS, LOWEST_PITCH, PITCHES, NoteThresholds
from musictool.symbolic.notes import Notes, Pedals, Score
from musictool.training.data.note_maps import SLOPE_FRAMES, note_maps
from musictool.training.data.pairs import PairNotes

HOP = 1 / 64  # so that whole frames are exact
FRAMES = 200
MILLISECONDS = 1e-3 / HOP  # in frames
SHORTEST = 3.01  # frames of a note; onsets of one pitch that lie exactly 3.0 apart, halfway between frames, are equals


def played(*rows: tuple, hop: float = HOP) -> PairNotes:
    """Notes of (onset, offset, pitch, velocity), the times in frames."""
    onset, offset, pitch, velocity = (np.array(column) for column in zip(*rows, strict=True))
    return PairNotes.of(Score(Notes.of(onset * hop, offset * hop, pitch, velocity)))


def maps_of(*parts: PairNotes, frames: int = FRAMES) -> dict[str, np.ndarray]:
    """The maps by name, float32 [T, 88] each."""
    maps = note_maps(parts, HOP, frames)
    assert maps.shape == (len(HEADS), frames, PITCHES)
    assert maps.dtype == np.float32
    return dict(zip(HEADS, maps, strict=True))


def line(maps: dict[str, np.ndarray], name: str, pitch: int = 60) -> np.ndarray:
    return maps[name][:, pitch - LOWEST_PITCH]


@st.composite
def melodies(draw: st.DrawFn) -> list[tuple[float, float, int, int]]:
    """Notes of some pitches: of one pitch they touch at most, and each is long enough to have peaks of its own."""
    frames = st.floats(0, 30)
    rows = []
    for pitch in draw(st.sets(st.integers(LOWEST_PITCH, LOWEST_PITCH + PITCHES - 1), min_size=1, max_size=5)):
        place = draw(frames)
        for pause, length, velocity in draw(
            st.lists(st.tuples(frames, frames, st.integers(1, 127)), min_size=1, max_size=8)
        ):
            onset, place = place, place + SHORTEST + length
            if onset > FRAMES - SHORTEST:
                break
            is_held = place > FRAMES - SHORTEST  # beyond the end, rather than near it
            rows.append((onset, place + 5 if is_held else place, pitch, velocity))
            place += pause * (pause > 10)  # often none at all
    return rows


@given(melodies())
@settings(max_examples=60, deadline=None)
def test_the_decoder_makes_the_notes_again(rows):
    maps = note_maps([played(*rows)], HOP, FRAMES)
    decoder = NoteDecoder(NoteThresholds(), HOP)
    decoder.feed(maps[[HEADS.index(name) for name in ("onset", "frame", "offset", "velocity")]])
    got = decoder.notes()
    expected = sorted(rows, key=lambda row: (row[2], row[0]))
    order = np.lexsort((got.onset_seconds, got.pitch))
    assert got.pitch[order].tolist() == [pitch for _, _, pitch, _ in expected]
    assert got.velocity[order].tolist() == [velocity for *_, velocity in expected]
    for onset, offset, row in zip(got.onset_seconds[order] / HOP, got.offset_seconds[order] / HOP, expected):
        is_first_frame = row[0] <= 0.5  # half of its triangle lies before the sound
        assert onset == pytest.approx(row[0], abs=0.25 if is_first_frame else 0.1 * MILLISECONDS)
        assert offset == pytest.approx(min(row[1], FRAMES), abs=0.1 * MILLISECONDS)


@pytest.mark.parametrize("x", [0.0, 0.3, 0.5, 0.8])
def test_triangles_stand_between_frames_where_the_notes_begin_and_end(x):
    maps = maps_of(played((50 + x, 80 + x, 60, 64)))
    for name, centre in (("onset", 50 + x), ("offset", 80 + x)):
        expected = np.maximum(0, 1 - np.abs(np.arange(FRAMES) - centre) / SLOPE_FRAMES)
        np.testing.assert_allclose(line(maps, name), expected, atol=1e-4)
    assert np.count_nonzero(maps["onset"].sum(0)) == 1


def test_boxes_last_while_the_key_is_down_and_while_the_note_sounds():
    notes = Notes.of([10 * HOP], [20 * HOP], 60, 64)
    maps = maps_of(PairNotes.of(Score(notes, pedals=Pedals.of([15 * HOP], [35.5 * HOP], [0]))))
    assert np.flatnonzero(line(maps, "frame")).tolist() == list(range(10, 20))
    assert np.flatnonzero(line(maps, "sounding")).tolist() == list(range(10, 36))
    assert line(maps, "offset").argmax() == 20
    assert set(np.unique(maps["frame"])) == set(np.unique(maps["sounding"])) == {0, 1}


def test_the_shortest_note_has_a_frame():
    maps = maps_of(played((10.2, 10.3, 60, 64)))
    assert np.flatnonzero(line(maps, "frame")).tolist() == np.flatnonzero(line(maps, "sounding")).tolist() == [11]


def test_velocity_stands_where_the_onset_does():
    maps = maps_of(played((10, 20, 60, 32), (40.5, 50, 60, 127), (40, 50, 72, 64)))
    expected = np.zeros((2, FRAMES))
    expected[0, 9:12], expected[0, 39:43], expected[1, 39:42] = 32 / 127, 1, 64 / 127
    np.testing.assert_allclose([line(maps, "velocity", pitch) for pitch in (60, 72)], expected, atol=1e-6)
    assert ((maps["velocity"] > 0) == (maps["onset"] > 0)).all()


def test_what_begins_before_and_ends_behind_a_stretch_sounds_throughout():
    maps = maps_of(played((-30, FRAMES + 30, 60, 64), (-10, 5, 62, 64), (FRAMES - 5, FRAMES + 5, 64, 64)))
    assert line(maps, "frame", 60).all()
    assert np.flatnonzero(line(maps, "frame", 62)).tolist() == list(range(5))
    assert np.flatnonzero(line(maps, "frame", 64)).tolist() == list(range(FRAMES - 5, FRAMES))
    assert not maps["onset"][:, [60 - LOWEST_PITCH, 62 - LOWEST_PITCH]].any()
    assert not maps["offset"][:, [60 - LOWEST_PITCH, 64 - LOWEST_PITCH]].any()


def test_drums_and_pitches_that_a_piano_lacks_are_left_out():
    low, high = LOWEST_PITCH - 1, LOWEST_PITCH + PITCHES
    assert not any(each.any() for each in maps_of(played((10, 20, low, 64), (10, 20, high, 64))).values())
    notes = played((10, 20, 60, 64))
    assert not any(each.any() for each in maps_of(replace(notes, is_drum=np.array([True]))).values())
    edges = maps_of(played((10, 20, low + 1, 64), (10, 20, high - 1, 64)))
    assert np.flatnonzero(edges["frame"].any(0)).tolist() == [0, PITCHES - 1]


def test_parts_together_are_the_higher_of_each():
    generator = np.random.default_rng(0)

    def part() -> PairNotes:
        onset = generator.uniform(0, FRAMES, 60)
        return played(*zip(onset, onset + 8, generator.integers(50, 60, 60), generator.integers(1, 128, 60)))

    parts = [part() for _ in range(3)]
    together, alone = maps_of(*parts), [maps_of(each) for each in parts]
    for name in ("onset", "frame", "offset", "sounding"):
        np.testing.assert_array_equal(together[name], np.maximum.reduce([each[name] for each in alone]))
    onsets, velocities = (np.stack([each[name] for each in alone]) for name in ("onset", "velocity"))
    expected = np.take_along_axis(velocities, onsets.argmax(0)[None], 0)[0]
    np.testing.assert_array_equal(together["velocity"], expected)


@pytest.mark.parametrize("parts", [[], [played((10, 20, 60, 64)).between(99, 100)]])
def test_where_nothing_is_played_all_is_0(parts):
    assert not any(each.any() for each in maps_of(*parts).values())


def test_a_stretch_without_frames_has_maps():
    assert maps_of(played((0, 20, 60, 64)), frames=0)["onset"].shape == (0, PITCHES)
