"""Pieces to learn composing from: what is read, how often each is drawn, and that draws hang on the generator alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from musictool.errors import InputError
from musictool.stream.records import Head
from musictool.symbolic.composing import HEADER_IDS, LANGUAGE, Composition, compose, shaded, transposed
from musictool.symbolic.corpus import CorpusWriter
from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Score
from musictool.symbolic.schemes import find_scheme
from musictool.symbolic.tokenization import Item
from musictool.training.data.compositions import CompositionCorpus, Renditions, open_compositions
from musictool.training.data.style_pieces import read_pieces
from tests.symbolic.scores import tune

PLAIN = Renditions((0, 0), (0, 0), (1.0, 1.0))


def write(path: Path, score: Score) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(write_midi(score))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two styles of 2 and 3 pieces, and one that is empty but for a piece without notes."""
    folder = tmp_path_factory.mktemp("styles")
    for number in range(2):
        write(folder / f"pop/{number}.mid", tune(number, bars=4 + 12 * number))
    for number in range(3):
        write(folder / f"jazz/Nobody/{number}.mid", tune(10 + number))
    write(folder / "pop/silent.mid", Score())
    write(folder / "silent/silent.mid", Score())
    return folder


@pytest.fixture(scope="module")
def corpus(folder: Path) -> CompositionCorpus:
    return open_compositions({"pop": [folder / "pop"], "jazz": [folder / "jazz"]})


# -------------------------------------------------------------------------------------------------------------- pieces


def test_pieces_are_those_of_the_files_written_in_the_language(folder: Path, corpus: CompositionCorpus) -> None:
    assert corpus.styles == ("pop", "jazz")
    assert corpus.names == ("0", "1", "Nobody/0", "Nobody/1", "Nobody/2")
    assert corpus.style_of.tolist() == [0, 0, 1, 1, 1]
    assert len(corpus) == 5
    paths = [folder / "pop/0.mid", folder / "pop/1.mid", *sorted((folder / "jazz/Nobody").iterdir())]
    for piece, path in zip(corpus.pieces, paths, strict=True):
        assert piece.ids.tolist() == compose(read_midi(path)).ids.tolist()


def test_folders_lists_and_token_corpora_give_the_same_pieces(folder: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    write(tmp_path / "music/Nobody/0.mid", tune(10))
    listed.write_text("# a list\nmusic/Nobody/0.mid\nmusic/Nobody/0\n")
    scheme = find_scheme("remi")
    with open(tmp_path / "corpus.parquet", "wb") as sink:
        writer = CorpusWriter(sink)
        head = Head("Nobody/0", "events", "remi", scheme.vocabulary.fingerprint)
        writer.write(Item(head, scheme.encode(tune(10))))
        writer.close()
    pieces = list(read_pieces([tmp_path / "music", listed, tmp_path / "corpus.parquet"]))
    assert [(piece.name, piece.artist) for piece in pieces] == [
        ("Nobody/0", "Nobody"), ("music/Nobody/0", "Nobody"), ("music/Nobody/0", "Nobody"), ("Nobody/0", "Nobody"),
    ]  # fmt: skip
    ids = [compose(piece.score).ids.tolist() for piece in pieces]
    assert all(same == ids[0] for same in ids[1:])


def test_a_style_without_a_note_is_refused(folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_compositions({"pop": [folder / "pop"], "none": [folder / "silent"]})
    assert caught.value.message == "style 'none' has no piece"
    assert str(folder / "silent") in caught.value.context
    assert caught.value.hint


def test_a_listed_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("gone\n")
    with pytest.raises(InputError) as caught:
        open_compositions({"pop": [listed]})
    assert "gone" in caught.value.context


# --------------------------------------------------------------------------------------------------------------- draws


def drawn_pieces(corpus: CompositionCorpus, shares: Sequence[float] | None = None, count: int = 4000) -> np.ndarray:
    generator = np.random.default_rng(0)
    found = Counter(corpus.draw_piece(generator, shares) for _ in range(count))
    return np.array([found[piece] for piece in range(len(corpus))]) / count


def test_styles_come_by_their_shares_and_pieces_by_their_length(corpus: CompositionCorpus) -> None:
    lengths = np.array([len(piece.ids) for piece in corpus.pieces])
    is_pop = corpus.style_of == 0
    within = np.where(is_pop, lengths / lengths[is_pop].sum(), lengths / lengths[~is_pop].sum())
    np.testing.assert_allclose(drawn_pieces(corpus), within / 2, atol=0.03)
    np.testing.assert_allclose(drawn_pieces(corpus, (1, 3)), within * np.where(is_pop, 0.25, 0.75), atol=0.03)
    assert drawn_pieces(corpus, (0, 1))[is_pop].sum() == 0
    assert drawn_pieces(corpus, (1, 0))[~is_pop].sum() == 0


def test_a_passage_begins_at_any_bar_that_leaves_half_of_it(corpus: CompositionCorpus) -> None:
    generator, most = np.random.default_rng(0), 200
    for piece, composition in enumerate(corpus.pieces):
        bars = {corpus.draw_bar(generator, piece, most) for _ in range(400)}
        late = len(composition.ids) - (most - HEADER_IDS) // 2
        expected = {bar for bar, start in enumerate(composition.bars) if start < max(late, 1)}
        assert bars == expected
        shortest = min(len(composition.passage(bar, 1 << 30, None, None)) for bar in bars)
        assert shortest >= min(most // 2, len(composition.ids))
    assert {corpus.draw_bar(generator, 1, 1 << 20) for _ in range(50)} == {0}  # of a piece that fits as a whole


@pytest.mark.parametrize("seed", range(20))
def test_a_rendition_is_within_its_bounds(corpus: CompositionCorpus, seed: int) -> None:
    ids = corpus.pieces[0].passage(0, 1 << 30, 0, 0)
    renditions = Renditions((-2, 3), (-1, 2), (0.9, 1.2))
    found = renditions.of(ids, np.random.default_rng(seed))
    possible = {
        shaded(transposed(ids, semitones), bins, 1.0).tobytes(): (semitones, bins)
        for semitones in range(-2, 4)
        for bins in range(-1, 3)
    }
    is_tempo = LANGUAGE.range_of_id[ids] == LANGUAGE.range_index("Tempo")
    at_old_tempo = np.where(is_tempo, ids, found).astype(np.int32)
    assert at_old_tempo.tobytes() in possible
    rates = LANGUAGE.value_of_id[found[is_tempo]]
    assert (rates >= 108).all()
    assert (rates <= 144).all()
    assert found.tobytes() == renditions.of(ids, np.random.default_rng(seed)).tobytes()


def test_renditions_reach_all_of_their_bounds(corpus: CompositionCorpus) -> None:
    ids, generator = corpus.pieces[0].passage(0, 1 << 30, 0, 0), np.random.default_rng(0)
    keys = {int(Renditions().of(ids, generator)[2]) - LANGUAGE.offset("Key") for _ in range(200)}
    assert keys == set(range(12))
    assert PLAIN.of(ids, generator).tolist() == ids.tolist()


@pytest.mark.parametrize("bounds", [{"semitones": (1, 0)}, {"velocity_bins": (1, 0)}, {"tempo_ratio": (0.0, 1.0)}])
def test_bounds_that_are_none_are_refused(bounds: dict) -> None:
    with pytest.raises(ValueError, match=r"lowest|above 0"):
        Renditions(**bounds)


def test_a_piece_in_memory_takes_four_bytes_an_id(corpus: CompositionCorpus) -> None:
    assert all(isinstance(piece, Composition) and piece.ids.dtype == np.int32 for piece in corpus.pieces)
