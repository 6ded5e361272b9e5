"""MidiTok tokenizer files as schemes, held against MidiTok itself."""

from __future__ import annotations

import json
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from musictool.errors import InputError, MissingError, UsageError
from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Notes, Pedals, Score, TempoMap, TimeSignature, Track
from musictool.symbolic.schemes import Scheme, find_scheme
from musictool.symbolic.score_meta import assemble, meta_of

miditok = pytest.importorskip("miditok", reason="MidiTok is an optional dependency")
symusic = pytest.importorskip("symusic")

FULL = {"use_programs": True, "use_tempos": True, "use_time_signatures": True, "use_sustain_pedals": True}
TOKENIZERS = {
    "remi": (miditok.REMI, {}),
    "remi with programs": (miditok.REMI, FULL),
    "remi, a sequence for each track of known program": (
        miditok.REMI,
        {"use_programs": True, "one_token_stream_for_programs": False},
    ),
    "tsd": (miditok.TSD, {}),
    "tsd with programs": (miditok.TSD, FULL),
    "midilike": (miditok.MIDILike, {}),
    "midilike with programs": (miditok.MIDILike, {"use_programs": True, "use_tempos": True}),
    "structured": (miditok.Structured, {}),
    "structured with programs": (miditok.Structured, {"use_programs": True}),
    "mmm": (miditok.MMM, {"base_tokenizer": "TSD"}),
}


def piece(seed: int, with_tempo: bool = True) -> bytes:
    """A MIDI file of three tracks that is the same for the same seed."""
    generator = np.random.default_rng(seed)
    tables = []
    for index, (program, is_drum) in enumerate([(0, False), (33, False), (0, True)]):
        onset = np.sort(generator.integers(0, 120, 40)) / 8
        length = generator.integers(1, 12, 40) / 8
        pitch = generator.integers(36, 84, 40)
        kept = np.unique(np.stack([onset * 8, pitch]), axis=1, return_index=True)[1]
        velocity = generator.integers(20, 127, 40)
        table = Notes.of(onset, onset + length, pitch, velocity, program, is_drum, index)
        tables.append(table.take(np.sort(kept)))
    tempo_map = TempoMap.of([0, 8], [500_000, 600_000] if with_tempo else [500_000] * 2)
    score = Score(
        Notes.concatenate(tables),
        (Track("piano"), Track("bass", 33), Track("drums", 0, True)),
        tempo_map,
        (TimeSignature(0, 4, 4), TimeSignature(8, 3, 4)),
        pedals=Pedals.of([1.0, 4.0], [2.0, 6.0], [0, 0]),
        has_metre=True,
    )
    return write_midi(score)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A few files to tokenize and to train on."""
    folder = tmp_path_factory.mktemp("pieces")
    paths = [folder / f"{seed}.mid" for seed in range(4)]
    for seed, path in enumerate(paths):
        path.write_bytes(piece(seed))
    return paths


def make(name: str, pieces: list[Path], is_trained: bool) -> object:
    kind, options = TOKENIZERS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MidiTok comments on the configurations that MMM changes
        tokenizer = kind(miditok.TokenizerConfig(**options))
        if is_trained:
            tokenizer.train(vocab_size=len(tokenizer) + 60, files_paths=pieces)
    return tokenizer


def load(tokenizer: object, path: Path) -> Scheme:
    tokenizer.save(path)
    return find_scheme(f"miditok:{path}")


def rows(notes: Notes) -> list[tuple]:
    columns = (np.round(notes.onset_seconds, 5), np.round(notes.offset_seconds, 5), notes.pitch, notes.velocity)
    return sorted(zip(*(column.tolist() for column in (*columns, notes.program, notes.is_drum)), strict=True))


def rows_of_symusic(score: object) -> list[tuple]:
    seconds = score.to("second")
    return sorted(
        (round(n.time, 5), round(n.time + n.duration, 5), n.pitch, n.velocity, track.program, track.is_drum)
        for track in seconds.tracks
        for n in track.notes
    )


def only_ids(encoded: object, is_trained: bool) -> object:
    """What a reader of a stream has of an encoding: its ids."""
    if isinstance(encoded, list):
        return [only_ids(sequence, is_trained) for sequence in encoded]
    return miditok.TokSequence(ids=list(encoded.ids), are_ids_encoded=is_trained)


def assert_same_rows(ours: list[tuple], theirs: list[tuple]) -> None:
    assert [row[2:] for row in ours] == [row[2:] for row in theirs]
    times, expected = (np.array([row[:2] for row in table]) for table in (ours, theirs))
    assert np.allclose(times, expected, rtol=0, atol=1e-3)  # a tempo's name has two decimals


@pytest.mark.parametrize("is_trained", [False, True], ids=["plain", "bpe"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_round_trip_equals_miditoks_own(name: str, is_trained: bool, pieces: list[Path], tmp_path: Path) -> None:
    tokenizer = make(name, pieces, is_trained)
    scheme = load(tokenizer, tmp_path / "tokenizer.json")
    for path in pieces:
        theirs = tokenizer.encode(path)
        ids = scheme.encode(read_midi(path))
        assert ids.dtype == np.int32
        if tokenizer.one_token_stream:
            assert ids.tolist() == theirs.ids
        else:
            end = scheme.vocabulary.id("EOS_None")
            assert ids.tolist() == [id for sequence in theirs for id in (*sequence.ids, end)]
        assert 0 <= ids.min() <= ids.max() < len(scheme.vocabulary)
        decoded = scheme.decode(np.array_split(ids, 7))
        assert_same_rows(rows(decoded.notes), rows_of_symusic(tokenizer.decode(only_ids(theirs, is_trained))))


@pytest.mark.parametrize("name", ["remi with programs", "tsd with programs", "structured with programs"])
def test_quantize_is_what_comes_back(name: str, pieces: list[Path], tmp_path: Path) -> None:
    scheme = load(make(name, pieces, is_trained=False), tmp_path / "tokenizer.json")
    for path in pieces:
        score = read_midi(path)
        notes, pedals = scheme.quantize(score)
        decoded = scheme.decode([scheme.encode(score)])
        assert_same_rows(rows(decoded.notes), rows(notes))
        assert len(decoded.pedals) == len(pedals)


def test_metre_and_pedals_come_back(pieces: list[Path], tmp_path: Path) -> None:
    scheme = load(make("remi with programs", pieces, is_trained=False), tmp_path / "tokenizer.json")
    score = read_midi(pieces[0])
    decoded = scheme.decode([scheme.encode(score)])
    assert [(s.numerator, s.denominator) for s in decoded.time_signatures] == [(4, 4), (3, 4)]
    assert len(decoded.tempo_map.start_quarters) == 2
    assert decoded.pedals.track.tolist() == [0, 0]
    assert {track.name for track in assemble(decoded, meta_of(score)).tracks} == {"piano", "bass", "drums"}


def test_a_sequence_for_each_track_stays_a_track(pieces: list[Path], tmp_path: Path) -> None:
    scheme = load(make("remi", pieces, is_trained=False), tmp_path / "tokenizer.json")
    decoded = scheme.decode([scheme.encode(read_midi(pieces[0]))])
    tracks = symusic.Score(pieces[0]).tracks
    assert set(decoded.notes.track.tolist()) == set(range(sum(len(track.notes) > 0 for track in tracks)))


@pytest.mark.parametrize("is_trained", [False, True], ids=["plain", "bpe"])
def test_fingerprint_names_tokenizer_not_file(is_trained: bool, pieces: list[Path], tmp_path: Path) -> None:
    tokenizer = make("remi with programs", pieces, is_trained)
    first = load(tokenizer, tmp_path / "a.json").vocabulary
    reloaded = miditok.REMI(params=tmp_path / "a.json")
    assert load(reloaded, tmp_path / "elsewhere.json").vocabulary.fingerprint == first.fingerprint
    saved = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "b.json").write_text(json.dumps(saved | {"miditok_version": "0"}, indent=1))
    assert find_scheme(f"miditok:{tmp_path / 'b.json'}").vocabulary.fingerprint == first.fingerprint
    saved["config"]["use_rests"] = True
    (tmp_path / "c.json").write_text(json.dumps(saved))
    assert find_scheme(f"miditok:{tmp_path / 'c.json'}").vocabulary.fingerprint != first.fingerprint


@pytest.mark.parametrize("is_trained", [False, True], ids=["plain", "bpe"])
def test_names_and_ids_are_inverse(is_trained: bool, pieces: list[Path], tmp_path: Path) -> None:
    vocabulary = load(make("tsd", pieces, is_trained), tmp_path / "tokenizer.json").vocabulary
    ids = np.arange(len(vocabulary), dtype=np.int32)
    names = vocabulary.names(ids)
    assert vocabulary.ids(names).tolist() == ids.tolist()
    assert any("+" in name for name in names) == is_trained
    described = vocabulary.describe()
    assert [row[0] for row in described] == [0, *(row[1] + 1 for row in described[:-1])]
    assert described[-1][1] == len(vocabulary) - 1


def test_an_empty_score_has_a_round_trip(pieces: list[Path], tmp_path: Path) -> None:
    for number, name in enumerate(TOKENIZERS):
        scheme = load(make(name, pieces, is_trained=False), tmp_path / f"{number}.json")
        assert len(scheme.decode([scheme.encode(Score())]).notes) == 0
        assert len(scheme.decode([]).notes) == 0


@pytest.mark.parametrize("name", TOKENIZERS)
def test_garbage_ids_fail_in_our_words_or_not_at_all(name: str, pieces: list[Path], tmp_path: Path) -> None:
    scheme = load(make(name, pieces, is_trained=False), tmp_path / "tokenizer.json")
    generator = np.random.default_rng(0)
    for _ in range(20):
        ids = generator.integers(0, len(scheme.vocabulary), 60).astype(np.int32)
        with suppress(InputError):
            scheme.decode([ids])


@pytest.mark.parametrize("kind", [miditok.Octuple, miditok.CPWord, miditok.MuMIDI])
def test_several_vocabularies_are_refused(kind: type, tmp_path: Path) -> None:
    kind().save(tmp_path / "tokenizer.json")
    with pytest.raises(UsageError, match="several vocabularies"):
        find_scheme(f"miditok:{tmp_path / 'tokenizer.json'}")


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "{}", "\udc80", '{"tokenization": 3}', '{"tokenization": "MusicTokenizer"}'),
        *('{"tokenization": "TokenizerConfig"}', '{"tokenization": "REMI", "config": 3}'),
    ],
)
def test_what_is_no_tokenizer_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match="no tokenizer") as caught:
        find_scheme(f"miditok:{path}")
    assert caught.value.context == str(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        find_scheme(f"miditok:{tmp_path / 'none.json'}")
    assert caught.value.context.endswith("none.json")


def test_missing_miditok_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "miditok", None)
    with pytest.raises(MissingError) as caught:
        find_scheme(f"miditok:{tmp_path / 'any.json'}")
    assert "musictool[miditok]" in caught.value.hint
