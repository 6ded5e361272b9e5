"""Figures of one piece, against muspy, pretty_midi, mido and scipy."""

from __future__ import annotations

from pathlib import Path

import mido
import muspy
import numpy as np
import pytest
import scipy.stats

from musictool.errors import InputError
from musictool.metrics.symbolic import FIGURES, figures_of, mean_ioi_seconds, polyphony, portrait_of
from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Notes, Score
from musictool.symbolic.pretty import to_pretty_midi
from tests.metrics.pieces import DRUMS, NOTHING, ONE_NOTE, random_piece, steady_piece

WALTZ = Path(__file__).parents[2] / "examples" / "waltz.mid"


def as_muspy(score):
    """The notes with a millisecond as the tick: one track of drums, one of the rest."""
    notes = score.notes
    tracks = []
    for is_drum in (False, True):
        part = notes.take(notes.is_drum == is_drum)
        columns = (np.rint(part.onset_seconds * 1000), np.rint((part.offset_seconds - part.onset_seconds) * 1000))
        rows = zip(*(column.astype(int).tolist() for column in (columns[0], part.pitch, columns[1])))
        tracks.append(muspy.Track(is_drum=is_drum, notes=[muspy.Note(*row) for row in rows]))
    return muspy.Music(resolution=1000, tracks=tracks)


@pytest.mark.parametrize("seed", range(4))
def test_figures_of_pitch_equal_muspys(seed):
    score = random_piece(seed, drums=0.2, grain=0.001)
    figures, music = figures_of(score), as_muspy(score)
    assert figures["unique_pitches"] == muspy.n_pitches_used(music)
    assert figures["pitch_class_entropy"] == pytest.approx(muspy.pitch_class_entropy(music))
    assert figures["polyphony"] == pytest.approx(muspy.polyphony(music))
    assert figures["polyphony"] > 1.5


def test_density_and_intervals_equal_midos_arithmetic():
    seconds, struck, held, ends = 0.0, [], set(), []
    for message in mido.MidiFile(WALTZ):
        seconds += message.time
        if message.type == "note_on" and message.velocity:
            struck.append(seconds)
            held.add((message.channel, message.note))
        elif message.type in ("note_on", "note_off") and (message.channel, message.note) in held:
            ends.append(seconds)
    figures = figures_of(read_midi(WALTZ))
    assert figures["note_density"] == pytest.approx(len(struck) / (max(ends) - min(struck)))
    attacks = [struck[0]]
    last = struck[0]
    for at in struck[1:]:
        if at - last >= 0.03:
            attacks.append(at)
        last = at
    assert figures["mean_ioi_seconds"] == pytest.approx((attacks[-1] - attacks[0]) / (len(attacks) - 1))
    assert len(attacks) < len(struck)


def test_intervals_of_one_voice_equal_pretty_midis():
    score = steady_piece(60 + np.arange(30) % 7, seconds=0.23, start=3.0)
    onsets = to_pretty_midi(score).get_onsets()
    assert mean_ioi_seconds(score.notes) == pytest.approx(np.diff(onsets).mean())


def test_hands_a_little_apart_are_one_attack():
    together = [0, 0.02, 0.04, 1, 1.029, 2]
    assert mean_ioi_seconds(Notes.of(together, np.add(together, 1), 60)) == 1
    assert mean_ioi_seconds(Notes.of([0, 0.031, 1], [1, 1, 2], 60)) == 0.5


def test_entropies_equal_scipys():
    notes = random_piece(5, 80, drums=0.2).notes
    rest = np.where(notes.onset_seconds > 10, 5.5, 0.0)  # seconds of silence do not count
    score = Score(
        notes.with_columns(onset_seconds=notes.onset_seconds + rest, offset_seconds=notes.offset_seconds + rest)
    )
    notes = score.notes.take(~score.notes.is_drum)
    shares = [np.count_nonzero(notes.pitch % 12 == one) for one in range(12)]
    figures = figures_of(score)
    assert figures["pitch_class_entropy"] == pytest.approx(scipy.stats.entropy(shares, base=2))
    entropies = []
    for second in range(60):
        sounding = np.zeros(12)
        overlap = np.minimum(notes.offset_seconds, second + 1) - np.maximum(notes.onset_seconds, second)
        np.add.at(sounding, notes.pitch % 12, np.maximum(overlap, 0))
        if sounding.sum() > 1e-9:
            entropies.append(scipy.stats.entropy(sounding, base=12))
    assert figures["harmonic_complexity"] == pytest.approx(np.mean(entropies))
    assert len(entropies) < score.notes.end_seconds - 2


def test_figures_tell_simple_from_complex():
    scale, cluster = steady_piece([60, 64, 67, 72] * 8), random_piece(1, 300)
    simple, rich = figures_of(scale), figures_of(cluster)
    for name in ("note_density", "unique_pitches", "pitch_class_entropy", "harmonic_complexity", "polyphony"):
        assert simple[name] < rich[name]
    assert simple["groove_consistency"] == 1 > rich["groove_consistency"]


def test_two_players_of_one_pitch_are_one_voice():
    assert polyphony(Notes.of([0, 0], [2, 2], [60, 60], program=[0, 40])) == 1
    assert polyphony(Notes.of([0, 1], [2, 2], [60, 61])) == 1.5


def test_drums_count_in_time_alone():
    piano = random_piece(3)
    figures = figures_of(piano)
    extra = Notes.of([0.5, 30], [0.6, 30.1], [36, 38], is_drum=True)
    both = figures_of(Score(Notes.concatenate([piano.notes, extra])))
    of_pitch = ("unique_pitches", "pitch_class_entropy", "harmonic_complexity", "polyphony", "bar_recurrence")
    assert [both[name] for name in of_pitch] == [figures[name] for name in of_pitch]
    of_time = set(FIGURES) - set(of_pitch)
    assert all(both[name] != figures[name] for name in of_time)


def test_what_is_not_there_is_none():
    assert set(figures_of(NOTHING).values()) == {None}
    assert [name for name, value in figures_of(DRUMS).items() if value is None] == [
        "unique_pitches",
        "pitch_class_entropy",
        "harmonic_complexity",
        "polyphony",
        "bar_recurrence",
    ]
    one = figures_of(ONE_NOTE)
    missing = ["mean_ioi_seconds", "groove_consistency", "bar_recurrence"]
    assert [name for name, value in one.items() if value is None] == missing
    assert (one["note_density"], one["unique_pitches"], one["pitch_class_entropy"], one["polyphony"]) == (0.5, 1, 0, 1)


@pytest.mark.parametrize("score", [NOTHING, DRUMS, ONE_NOTE, random_piece(0)])
def test_figures_are_numbers_or_none_by_name(score):
    figures = figures_of(score)
    assert tuple(figures) == FIGURES
    assert all(value is None or np.isfinite(value) for value in figures.values())


def test_a_note_without_length_is_a_note():
    figures = figures_of(Score(Notes.of([1, 2], [1, 2], [60, 62])))
    assert figures["note_density"] == pytest.approx(2 / 1.001)
    assert figures["harmonic_complexity"] == 0


def test_a_piece_and_its_midi_file_are_alike():
    score = random_piece(2, grain=1 / 960)
    again = figures_of(read_midi(write_midi(score)))
    for name, value in figures_of(score).items():
        assert again[name] == pytest.approx(value, rel=1e-3)


def test_a_portrait_has_shares():
    portrait = portrait_of(random_piece(0))
    assert portrait.pitch_classes.sum() == pytest.approx(1)
    assert portrait.transitions.sum() == pytest.approx(1)
    assert (portrait.notes, tuple(portrait.figures)) == (150, FIGURES)
    nothing = portrait_of(DRUMS)
    assert not nothing.pitch_classes.any()
    assert not nothing.transitions.any()


@pytest.mark.parametrize(
    ("onset", "offset", "message"),
    [(np.nan, 1, "no number"), (-0.1, 1, "before the start"), (1, 0.9, "before it begins"), (1, 1e6, "than a day")],
)
def test_times_that_make_no_sense_are_refused(onset, offset, message):
    with pytest.raises(InputError, match=f"the piece .*{message}"):
        figures_of(Score(Notes.of([onset], [offset], 60)))
