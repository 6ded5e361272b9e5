"""Windows of a style corpus hold what their pieces do, within their bounds, and hang on the generator alone."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from musictool.errors import InputError
from musictool.stream.records import Head
from musictool.symbolic.corpus import CorpusWriter
from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Notes, Pedals, Score, Track
from musictool.symbolic.piano_ids import score_of_ids
from musictool.symbolic.schemes import find_scheme
from musictool.symbolic.tokenization import Item
from musictool.training.data.style_corpus import Change, Variations, open_style_corpus

CORPORA = os.environ.get("MTK_TEST_DATA")
STILL = Variations((0, 0), (1.0, 1.0), (1.0, 1.0), (0, 0))


def a_piece(seed: int, seconds: float = 30.0, density: float = 6.0) -> Score:
    """Notes at random, on whole ticks, with pedals, some keys that no piano has and drums."""
    generator = np.random.default_rng(seed)
    count = int(seconds * density)
    onset = np.sort(generator.integers(0, int(seconds * 100) - 100, count)) / 100
    length = generator.integers(1, 100, count) / 100
    pitch, velocity = generator.integers(15, 115, count), generator.integers(1, 128, count)
    track = generator.integers(0, 3, count)
    program, is_drum = np.array([0, 33, 0])[track], track == 2
    presses = np.arange(0, seconds - 2, 2.0)
    tracks = (Track("piano", 0), Track("bass", 33), Track("drums", 0, True))
    notes = Notes.of(onset, onset + length, pitch, velocity, program, is_drum, track)
    pedals = Pedals.of(presses, presses + 1.5, np.zeros(len(presses), np.int16))
    return Score(notes, tracks, pedals=pedals)


def write(path: Path, score: Score) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(write_midi(score))
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two styles; one has artists."""
    folder = tmp_path_factory.mktemp("styles")
    for number in range(3):
        write(folder / "pop" / f"{number}.mid", a_piece(number, seconds=20 + 10 * number))
    for number in range(2):
        write(folder / "classical" / "Czerny" / f"{number}.mid", a_piece(10 + number, density=20))
        write(folder / "classical" / "midis" / "Clementi" / f"{number}.mid", a_piece(20 + number))
    return open_style_corpus({"pop": [folder / "pop"], "classical": [folder / "classical"]})


def rows(notes: Notes) -> list[tuple[int, int, int, int]]:
    """Onset and offset in ticks, pitch, velocity."""
    times = (np.rint(column * 100).astype(int).tolist() for column in (notes.onset_seconds, notes.offset_seconds))
    return list(zip(*times, notes.pitch.tolist(), notes.velocity.tolist()))


def presses(pedals: Pedals) -> list[tuple[int, int]]:
    return [(round(on * 100), round(off * 100)) for on, off in zip(pedals.onset_seconds, pedals.offset_seconds)]


def plain(window):
    ids, notes, pedals, *rest = (getattr(window, name) for name in window.__slots__)
    return ids.tolist(), rows(notes), presses(pedals), rest


def piano_of(score: Score) -> list[tuple[int, int, int, int]]:
    """The notes of a score that a piano has keys for, a later one of a key ending an earlier, one by one."""
    played = [
        row for row, is_drum in zip(rows(score.notes), score.notes.is_drum) if not is_drum and 21 <= row[2] <= 108
    ]
    loudest = {(pitch, on): (velocity, off) for on, off, pitch, velocity in sorted(played, key=lambda row: row[3])}
    kept = []
    for (pitch, on), (velocity, off) in loudest.items():
        later = [other for key, other in loudest if key == pitch and other > on]
        kept.append((on, min(off, *later, 1 << 40) if later else off, pitch, velocity))
    return sorted(kept, key=lambda row: (row[0], row[2]))


def pieces_of(corpus, style):
    return np.flatnonzero(corpus.genre_of == corpus.styles.index(style))


# -------------------------------------------------------------------------------------------------------------- pieces


def test_pieces_are_what_a_piano_can_play_of_the_files(corpus):
    assert corpus.styles == ("pop", "classical")
    assert corpus.artists == ("Clementi", "Czerny")
    assert corpus.pieces[:4] == ("0", "1", "2", "Czerny/0")
    assert corpus.pieces[-1] == "midis/Clementi/1"
    assert [corpus.artist_of[piece] for piece in range(len(corpus))] == [-1, -1, -1, 1, 1, 0, 0]
    for piece in range(3):
        score = a_piece(piece, seconds=20 + 10 * piece)
        assert rows(corpus.piano(piece).notes()) == piano_of(score)
        assert presses(corpus.piano(piece).pedals()) == presses(score.pedals)
        assert corpus.lengths[piece] == max(off for _, off, _, _ in piano_of(score))


def test_lists_and_token_corpora_hold_the_same_pieces_as_folders(corpus, tmp_path):
    for number in range(2):
        write(tmp_path / "music" / "Czerny" / f"{number}.mid", a_piece(10 + number, density=20))
    listed = tmp_path / "lists" / "train.txt"
    listed.parent.mkdir()
    listed.write_text("# by Czerny\n../music/Czerny/0.mid\n\n../music/Czerny/1\n")
    scheme = find_scheme("tatum")
    with open(tmp_path / "corpus.parquet", "wb") as sink:
        writer = CorpusWriter(sink)
        for number in range(2):
            head = Head(f"Czerny/{number}", "events", "tatum", scheme.vocabulary.fingerprint)
            writer.write(Item(head, scheme.encode(a_piece(10 + number, density=20))))
        writer.close()
    opened = open_style_corpus(
        {"folder": [tmp_path / "music"], "list": [listed], "tokens": [tmp_path / "corpus.parquet"]}
    )
    assert opened.artists == ("Czerny",)
    assert opened.genre_of.tolist() == [0, 0, 1, 1, 2, 2]
    assert opened.artist_of.tolist() == [0] * 6
    for number in range(2):
        folder, from_list, tokens = (rows(opened.piano(number + 2 * style).notes()) for style in range(3))
        assert folder == from_list == rows(corpus.piano(3 + number).notes())
        assert tokens == [(on, off, pitch, velocity // 4 * 4 + 2) for on, off, pitch, velocity in folder]


def test_a_corpus_of_any_scheme_can_be_read(tmp_path):
    scheme = find_scheme("mt3")
    with open(tmp_path / "corpus.parquet", "wb") as sink:
        writer = CorpusWriter(sink)
        writer.write(Item(Head("x", "events", "mt3", scheme.vocabulary.fingerprint), scheme.encode(a_piece(0))))
        writer.close()
    opened = open_style_corpus({"any": [tmp_path / "corpus.parquet"]})
    assert opened.artist_of.tolist() == [-1]
    assert len(opened.piano(0)) > 50


def test_nobody_knows_an_artist_called_by_a_hyphen(tmp_path):
    for folder in ("-", "Haydn"):
        write(tmp_path / folder / "a.mid", a_piece(0))
    opened = open_style_corpus({"classical": [tmp_path], "other": [tmp_path / "-"]})
    assert opened.artists == ("Haydn",)
    assert opened.artist_of.tolist() == [-1, 0, -1]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    write(tmp_path / "good.mid", a_piece(0))
    (tmp_path / "bad.mid").write_bytes(b"MThd, or so it seemed")
    with pytest.raises(InputError) as caught:
        open_style_corpus({"pop": [tmp_path]})
    assert str(tmp_path / "bad.mid") in caught.value.context


def test_a_listed_file_that_is_not_there_is_named(tmp_path):
    (tmp_path / "list.txt").write_text("gone.mid\n")
    with pytest.raises(InputError, match="not there") as caught:
        open_style_corpus({"pop": [tmp_path / "list.txt"]})
    assert caught.value.context.endswith("list.txt: gone.mid")


@pytest.mark.parametrize("what", ["nothing", "drums"])
def test_a_style_without_pieces_is_refused(tmp_path, what):
    good, empty = tmp_path / "good", tmp_path / "empty"
    write(good / "a.mid", a_piece(0))
    empty.mkdir()
    if what == "drums":
        write(empty / "a.mid", Score(Notes.of([0.0], [1.0], [36], is_drum=True), (Track("Drums", 0, True),)))
    with pytest.raises(InputError, match="style 'jazz' has no piece"):
        open_style_corpus({"pop": [good], "jazz": [empty]})


def test_a_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_style_corpus({"pop": [tmp_path / "gone"]})


# ------------------------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("start", [0, 137, 1500])
def test_an_unchanged_window_is_the_stretch_of_the_piece(corpus, start):
    window = corpus.window(2, start, 24, 10_000)
    stop = start + 24 * 25
    inside = [row for row in piano_of(a_piece(2, seconds=40)) if start <= row[0] < stop]
    assert rows(window.notes) == [(on - start, min(off, stop) - start, *rest) for on, off, *rest in inside]
    held = [(max(on, start) - start, min(off, stop) - start) for on, off in presses(a_piece(2, 40).pedals)]
    assert presses(window.pedals) == [press for press in held if press[1] > press[0]]
    assert (window.frames, window.genre, window.artist, window.piece) == (24, 0, -1, 2)


@pytest.mark.parametrize("seed", range(20))
def test_ids_say_what_the_window_holds_and_keep_its_bounds(corpus, seed):
    window = corpus.draw(np.random.default_rng(seed), 40, 400)
    said = score_of_ids(window.ids)
    assert rows(said.notes) == [(on, off, pitch, v // 4 * 4 + 2) for on, off, pitch, v in rows(window.notes)]
    assert presses(said.pedals) == presses(window.pedals)
    assert window.ids.dtype == np.int32
    assert 0 < len(window.ids) <= 400
    assert 1 <= window.frames <= 40
    assert len(window.notes) > 0
    assert window.notes.end_seconds <= window.frames / 4
    assert all(off <= window.frames * 25 for _, off in presses(window.pedals))
    assert window.notes.pitch.min() >= 21
    assert window.notes.pitch.max() <= 108
    assert window.genre == corpus.genre_of[window.piece]
    assert window.artist == corpus.artist_of[window.piece]


def test_the_same_state_draws_the_same_windows(corpus):
    first, second = np.random.default_rng(5), np.random.default_rng(5)
    windows = [plain(corpus.draw(first, 40, 500)) for _ in range(10)]
    assert windows == [plain(corpus.draw(second, 40, 500)) for _ in range(10)]
    assert len({str(window) for window in windows}) == 10


def test_a_window_with_too_many_ids_has_as_many_frames_as_fit(corpus):
    dense = pieces_of(corpus, "classical")[0]
    for tokens_max in (60, 200, 333, 500):
        fitting = corpus.window(dense, 400, 48, tokens_max)
        assert len(fitting.ids) <= tokens_max
        assert fitting.frames < 48
        assert plain(fitting) == plain(corpus.window(dense, 400, fitting.frames, 10_000))
        assert len(corpus.window(dense, 400, fitting.frames + 1, 10_000).ids) > tokens_max


def test_a_frame_with_too_many_ids_loses_its_last_notes(tmp_path):
    onset = np.repeat(np.arange(20) / 100, 8)
    notes = Notes.of(onset, onset + 0.02, np.arange(160) % 80 + 24)
    write(tmp_path / "a.mid", Score(notes))
    corpus = open_style_corpus({"noise": [tmp_path]})
    window = corpus.window(0, 0, 10, 120)
    assert window.frames == 1
    assert 80 < len(window.ids) <= 120
    count = len(window.notes)
    assert [row[0::2] for row in rows(window.notes)] == [row[0::2] for row in rows(notes.sorted())[:count]]


def test_a_window_is_as_long_as_what_is_left_of_its_piece(corpus):
    length = int(corpus.lengths[0])
    assert corpus.window(0, length - 130, 48, 5000).frames == 6
    assert corpus.window(0, 0, 1000, 100_000).frames == -(-length // 25)
    assert corpus.window(0, 0, 1000, 100_000, Change(stretch=2.0)).frames == -(-2 * length // 25)
    assert corpus.draw(np.random.default_rng(0), 1000, 100_000, shares=(1, 0), variations=STILL).frames >= 70


def test_a_silent_stretch_gives_way_to_the_next_note(tmp_path):
    write(tmp_path / "a.mid", Score(Notes.of([0.0, 300.0], [0.5, 300.5], [60, 64])))
    corpus = open_style_corpus({"sparse": [tmp_path]})
    generator = np.random.default_rng(0)
    windows = [corpus.draw(generator, 8, 100) for _ in range(50)]
    assert all(len(window.notes) == 1 for window in windows)
    assert sum(window.notes.onset_seconds[0] == 0 for window in windows) > 40


# ------------------------------------------------------------------------------------------------------------ changes


def test_a_change_moves_stretches_and_accents(corpus):
    whole = corpus.window(1, 200, 20, 10_000)
    still = rows(whole.notes)
    longer = list(rows(corpus.window(1, 200, 22, 10_000, Change(2, 1.1, 1.2, -5)).notes))
    expected = [(round(on * 1.1), pitch + 2, min(max(round(v * 1.2) - 5, 1), 127)) for on, _, pitch, v in still]
    assert [(on, pitch, v) for on, _, pitch, v in longer] == expected
    uncut = [(round(off * 1.1), other) for (_, off, _, _), (_, other, _, _) in zip(still, longer) if off < 495]
    assert len(uncut) > 10
    assert all(end == other for end, other in uncut)
    pedals = corpus.window(1, 200, 22, 10_000, Change(2, 1.1)).pedals
    assert presses(pedals) == [(round(on * 1.1), round(off * 1.1)) for on, off in presses(whole.pedals)]


def test_a_window_that_is_played_faster_takes_in_more_of_the_piece(corpus):
    faster = rows(corpus.window(1, 0, 40, 10_000, Change(stretch=0.8)).notes)
    assert len(faster) == len([row for row in piano_of(a_piece(1)) if round(row[0] * 0.8) < 1000])


def test_no_change_leaves_the_keys_of_a_piano(tmp_path):
    write(tmp_path / "a.mid", Score(Notes.of([0.0, 1.0], [1.0, 2.0], [23, 105])))
    corpus = open_style_corpus({"wide": [tmp_path]})
    moved = {move: corpus.window(0, 0, 8, 100, Change(move)).notes.pitch.tolist() for move in (-5, -1, 2, 6)}
    assert moved == {-5: [21, 103], -1: [22, 104], 2: [25, 107], 6: [26, 108]}


def test_notes_of_a_key_that_rounding_puts_in_one_tick_are_one(tmp_path):
    write(tmp_path / "a.mid", Score(Notes.of([0.0, 0.04, 0.05], [0.01, 0.05, 0.5], [60, 60, 60], [5, 90, 80])))
    corpus = open_style_corpus({"fast": [tmp_path]})
    assert rows(corpus.window(0, 0, 8, 100, Change(stretch=0.9)).notes) == [(0, 1, 60, 5), (4, 5, 60, 90)]


def test_draws_reach_all_variations_and_nothing_beyond():
    variations = Variations((-2, 1), (0.5, 2.0), (0.8, 1.2), (-3, 4))
    generator = np.random.default_rng(0)
    drawn = np.array([astuple(variations.draw(generator)) for _ in range(2000)])
    assert set(drawn[:, 0]) == {-2, -1, 0, 1}
    assert set(drawn[:, 3]) == set(range(-3, 5))
    assert 0.5 <= drawn[:, 1].min() < 0.51
    assert 1.97 < drawn[:, 1].max() <= 2.0
    assert abs(np.median(drawn[:, 1]) - 1) < 0.06  # as often shorter as longer
    assert 0.8 <= drawn[:, 2].min() < 0.81
    assert 1.19 < drawn[:, 2].max() <= 1.2


@pytest.mark.parametrize("wrong", [{"semitones": (3, 2)}, {"stretch": (0.0, 1.0)}, {"velocity_scale": (-1.0, 1.0)}])
def test_senseless_variations_are_refused(wrong):
    with pytest.raises(ValueError, match=r"variation|stretch"):
        Variations(**wrong)


# -------------------------------------------------------------------------------------------------------------- shares


def test_styles_come_by_their_shares_and_pieces_by_their_lengths(corpus):
    generator = np.random.default_rng(0)

    def drawn(count: int, shares=None) -> Counter:
        return Counter(corpus.draw(generator, 4, 1000, shares=shares).piece for _ in range(count))

    alike = drawn(1000)
    assert 440 < sum(alike[piece] for piece in pieces_of(corpus, "pop")) < 560
    only = drawn(600, (2.0, 0.0))
    assert set(only) == set(pieces_of(corpus, "pop"))
    lengths = corpus.lengths[:3] / corpus.lengths[:3].sum()
    assert all(abs(only[piece] / 600 - lengths[piece]) < 0.06 for piece in range(3))
    assert set(drawn(50, (0.0, 0.1))) <= set(pieces_of(corpus, "classical"))


def test_a_companion_is_another_piece_of_the_artist_if_there_is_one(corpus, tmp_path):
    generator = np.random.default_rng(0)
    assert [corpus.draw_companion(generator, piece) for piece in range(7)] == [0, 1, 2, 4, 3, 6, 5]
    write(tmp_path / "Haydn" / "only.mid", a_piece(0))
    assert open_style_corpus({"classical": [tmp_path]}).draw_companion(generator, 0) == 0
    for number in range(3):
        write(tmp_path / "Haydn" / f"{number}.mid", a_piece(number))
    four = open_style_corpus({"classical": [tmp_path]})
    assert {four.draw_companion(generator, 2) for _ in range(50)} == {0, 1, 3}


def test_windows_begin_anywhere_in_a_piece(corpus):
    generator = np.random.default_rng(1)
    starts = []
    for _ in range(300):
        window = corpus.draw(generator, 8, 1000, shares=(1, 0), variations=STILL)
        if window.piece == 2:
            first = rows(window.notes)[0]
            whole = rows(corpus.piano(2).notes())
            starts += [on - first[0] for on, _, *rest in whole if rest == list(first[2:])][:1]
    reached = np.histogram(starts, 8, (0, int(corpus.lengths[2]) - 200))[0]
    assert (reached > 5).all()


# --------------------------------------------------------------------------------------------------------------- music


@pytest.mark.skipif(not CORPORA, reason="no unpacked corpora")
def test_windows_of_real_music_are_full_and_within_bounds():
    folder = Path(CORPORA or "") / "pianomidi" / "midis"
    corpus = open_style_corpus({"classical": [folder / "Grieg", folder / "Bach"]})
    generator = np.random.default_rng(0)
    windows = [corpus.draw(generator, 48, 1024) for _ in range(200)]
    assert all(len(window.notes) > 0 and len(window.ids) <= 1024 for window in windows)
    assert np.mean([window.frames == 48 for window in windows]) > 0.8
    files = sorted((folder / "Grieg").glob("*.mid"))
    assert len(corpus.piano(0)) <= len(read_midi(files[0]).notes)
