"""Scheme `miditok:FILE.json`: any tokenizer of MidiTok that writes one vocabulary, as saved by `tokenizer.save`.

Fradet et al., "MidiTok: A Python package for MIDI file tokenization" (2021). The ids are the tokenizer's own, those of
its model (BPE, Unigram, WordPiece) where it has one, so that models trained with MidiTok elsewhere read them. A
tokenizer that writes a sequence for each track gets them in one stream, each closed by `EOS_None`; their programs are
lost where it has no tokens for them, and so are tempos: decoded music then runs at 120 quarters a minute.

The decoder holds all ids until the end: a tokenizer's rules look both ways.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from symusic import core

from musictool.errors import InputError, MissingError, UsageError
from musictool.symbolic.notes import Notes, Pedals, Score, TempoMap, TimeSignature
from musictool.symbolic.schemes import Scheme
from musictool.symbolic.schemes.columns import DRUM_SOURCE
from musictool.symbolic.vocabulary import Ids, Vocabulary

if TYPE_CHECKING:
    from miditok import MusicTokenizer

NAME = "miditok"
END_OF_SEQUENCE = "EOS_None"


def load_scheme(path: str) -> Scheme:
    """The scheme of a tokenizer file.

    Raises:
        MissingError: MidiTok is not installed.
        InputError: the file can't be read or holds no tokenizer.
        UsageError: it is one whose tokens are no single stream of ids.
    """
    tokenizer = _load_tokenizer(Path(path))
    if tokenizer.is_multi_voc:
        kind = type(tokenizer).__name__
        raise UsageError(
            f"{kind} has several vocabularies side by side and can't be a stream of tokens",
            context=path,
            hint="use REMI, TSD, MIDILike, Structured or another tokenizer of one vocabulary",
        )
    if not tokenizer.one_token_stream and END_OF_SEQUENCE not in tokenizer.vocab:
        raise UsageError(
            f"the tokenizer writes a sequence for each track and has no {END_OF_SEQUENCE} to end one",
            context=path,
            hint="give it use_programs=True, or the special token EOS",
        )
    adapter = _Adapter(tokenizer)
    vocabulary = TokenizerVocabulary(NAME, (), *_declaration(tokenizer))
    return Scheme(NAME, vocabulary, adapter.encode, adapter.quantize, lambda: Decoder(adapter))


@dataclass(frozen=True)
class TokenizerVocabulary(Vocabulary):
    """The vocabulary of a tokenizer: names instead of ranges.

    A token that a model learned prints as the tokens it stands for, joined by `+`.

    Attributes:
        listed: the name of every id.
        declared: all that decides what ids mean, as text.
    """

    listed: tuple[str, ...]
    declared: str

    @cached_property
    def token_names(self) -> tuple[str, ...]:
        """The printed token of every id."""
        return self.listed

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the tokenizer's kind, configuration and tokens, in hexadecimal."""
        return hashlib.sha256(self.declared.encode()).hexdigest()

    def describe(self) -> Sequence[tuple[int, int, str, str]]:
        """One row a run of tokens of one type: first id, last id, type, values as text."""
        rows = []
        for kind, run in groupby(enumerate(self.listed), key=lambda entry: entry[1].partition("_")[0]):
            (first, first_name), *_, (last, last_name) = [*run] * 2
            values = [name.partition("_")[2] for name in (first_name, last_name)]
            rows.append((first, last, kind, values[0] if first == last else "..".join(values)))
        return rows


class Decoder:
    """Ids to notes, all at the end."""

    def __init__(self, adapter: _Adapter) -> None:
        self.keeps_pedals = True  # whatever is asked: all ids are kept until the end
        self._adapter = adapter
        self._chunks: list[Ids] = [np.zeros(0, np.int32)]

    def feed(self, ids: Ids) -> Notes:
        """Take in ids, int32 [t]; no notes yet."""
        self._chunks.append(ids)
        return Notes.empty()

    def finish(self) -> Score:
        """The whole piece.

        Raises:
            InputError: MidiTok makes nothing of the ids.
        """
        return self._adapter.decode(np.concatenate(self._chunks))


class _Adapter:
    """A tokenizer between our scores and our ids."""

    def __init__(self, tokenizer: MusicTokenizer) -> None:
        self._tokenizer = tokenizer
        self._end = -1 if tokenizer.one_token_stream else int(tokenizer.vocab[END_OF_SEQUENCE])

    def encode(self, score: Score) -> Ids:
        """The ids of a score, int32 [t].

        Raises:
            InputError: MidiTok can't tokenize it.
        """
        with _in_our_words("MidiTok can't tokenize this piece"):
            encoded = self._tokenizer.encode(_to_symusic(score))
        if self._end < 0:
            return np.array(encoded.ids, np.int32)
        return np.array([id for sequence in encoded for id in (*sequence.ids, self._end)], np.int32)

    def quantize(self, score: Score) -> tuple[Notes, Pedals]:
        """The notes and pedals after the tokenizer's own preprocessing, at the tempos it can say."""
        with _in_our_words("MidiTok can't preprocess this piece"):
            piece = self._tokenizer.preprocess_score(_to_symusic(score))
        config = self._tokenizer.config
        if not config.use_tempos:
            piece.tempos = core.TempoTickList()
        if not config.use_programs:
            for track in piece.tracks:
                track.program, track.is_drum = 0, False
        if not config.use_sustain_pedals:
            for track in piece.tracks:
                track.pedals = core.PedalTickList()
        if not piece.tempos or piece.tempos[0].time:
            piece.tempos.insert(0, core.TempoTick(0, self._tokenizer.default_tempo))
        quantized = _from_symusic(piece)
        return quantized.notes, quantized.pedals

    def decode(self, ids: Ids) -> Score:
        """The score of ids, int32 [t]; `track` of its notes holds the voice, of its pedals the source."""
        from miditok import TokSequence

        def sequence(part: Ids) -> TokSequence:
            return TokSequence(ids=part.tolist(), are_ids_encoded=self._tokenizer.is_trained)

        with _in_our_words("MidiTok makes nothing of these tokens"):
            if self._end < 0:
                return _from_symusic(self._tokenizer.decode(sequence(ids)))
            parts = np.split(ids, np.flatnonzero(ids == self._end) + 1)
            parts = [part[part != self._end] for part in parts if len(part)]
            return _from_symusic(self._tokenizer.decode([sequence(part) for part in parts]))


def _load_tokenizer(path: Path) -> MusicTokenizer:
    try:
        import miditok
    except ImportError as error:
        raise MissingError(
            "MidiTok is not installed", hint="pip install 'musictool[miditok]'", code="missing-dependency"
        ) from error
    try:
        saved = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", context=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise _no_tokenizer(path, "it is no JSON") from error
    name = saved.get("tokenization") if isinstance(saved, dict) else None
    kind = getattr(miditok, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and issubclass(kind, miditok.MusicTokenizer) and kind is not miditok.MusicTokenizer):
        raise _no_tokenizer(path, "it names no tokenization that MidiTok knows")
    try:
        return kind(params=path)
    except Exception as error:  # whatever MidiTok stumbles over in a file that is not what it says
        raise _no_tokenizer(path, f"{type(error).__name__}: {error}") from error


def _no_tokenizer(path: Path, why: str) -> InputError:
    return InputError(
        f"no tokenizer of MidiTok: {why:.100}",
        context=str(path),
        hint="make the file with tokenizer.save(...)",
        code="invalid-tokenizer",
    )


@contextmanager
def _in_our_words(what: str) -> Iterator[None]:
    """Turn whatever MidiTok raises into one of our errors; it raises anything where tokens make no sense to it."""
    try:
        yield
    except Exception as error:
        raise InputError(f"{what}: {type(error).__name__}: {error!s:.80}", code="miditok") from error


def _declaration(tokenizer: MusicTokenizer) -> tuple[tuple[str, ...], str]:
    """The name of every id of a tokenizer, and all that decides what they mean as text."""
    meanings = {id: (name,) for name, id in tokenizer.vocab.items()}
    if tokenizer.is_trained:
        learned = tokenizer._vocab_learned_bytes_to_tokens
        meanings = {id: tuple(learned.get(text, (text,))) for text, id in tokenizer.vocab_model.items()}
    names = [f"Unused_{id}" for id in range(max(meanings, default=-1) + 1)]
    for id, tokens in meanings.items():
        names[id] = "+".join(tokens)
    count = Counter(names)  # two ways to merge the same tokens are two ids
    listed = tuple(name if count[name] == 1 else f"{name}@{id}" for id, name in enumerate(names))
    config = _in_order(tokenizer.config.to_dict(serialize=True))
    return listed, json.dumps([type(tokenizer).__name__, config, listed], sort_keys=True, separators=(",", ":"))


def _in_order(value: Any) -> Any:
    """A configuration with its sets, which were saved as lists in any order, in one order."""
    if isinstance(value, dict):
        return {key: _in_order(entry) for key, entry in value.items()}
    if isinstance(value, list) and all(isinstance(entry, int) for entry in value):
        return sorted(value)
    return value


def _to_symusic(score: Score) -> core.ScoreTick:
    """A score in the ticks of the file it came from, one track a track and program."""
    resolution, tempo_map, notes, pedals = score.ticks_per_quarter, score.tempo_map, score.notes, score.pedals

    def ticks(seconds: Any) -> Any:
        return np.rint(tempo_map.quarters(seconds) * resolution).astype(np.int32)

    piece: Any = core.ScoreTick(resolution)
    starts, tempos = tempo_map.start_quarters.tolist(), tempo_map.microseconds_per_quarter.tolist()
    for quarter, tempo in zip(starts, tempos, strict=True):
        piece.tempos.append(core.TempoTick(round(quarter * resolution), mspq=tempo))
    for metre in score.time_signatures:
        place = round(metre.quarter * resolution)
        piece.time_signatures.append(core.TimeSignatureTick(place, metre.numerator, metre.denominator))
    for key in score.key_signatures:
        place = round(key.quarter * resolution)
        piece.key_signatures.append(core.KeySignatureTick(place, key.sharps, int(key.is_minor)))

    onset, offset = ticks(notes.onset_seconds), ticks(notes.offset_seconds)
    pedal_onset, pedal_offset = ticks(pedals.onset_seconds), ticks(pedals.offset_seconds)
    part_of_note = notes.track.astype(np.int64) << 8 | notes.is_drum.astype(np.int64) << 7 | notes.program
    pedalled = set()
    for part in np.unique(part_of_note).tolist():
        index, own = part >> 8, part_of_note == part
        name = score.tracks[index].name if index < len(score.tracks) else ""
        track: Any = core.TrackTick(name, part & 127, bool(part & 128))
        track.notes = core.NoteTickList.from_numpy(
            onset[own],
            (offset - onset)[own],
            notes.pitch[own].astype(np.int8),
            notes.velocity[own].astype(np.int8),
        )
        if index not in pedalled:
            pedalled.add(index)
            pressed = pedals.track == index
            for start, end in zip(pedal_onset[pressed].tolist(), pedal_offset[pressed].tolist(), strict=True):
                track.pedals.append(core.PedalTick(start, end - start))
        piece.tracks.append(track)
    return piece


def _from_symusic(piece: core.ScoreTick) -> Score:
    """A score as a scheme decodes it: tracks of one source are told apart by voice."""
    resolution = piece.ticks_per_quarter
    tempos = piece.tempos.numpy()
    tempo_map = TempoMap.of(tempos["time"] / resolution, tempos["mspq"])
    tables, presses = [], []
    voices: Counter[int] = Counter()
    for track in piece.tracks:
        source = track.program + DRUM_SOURCE * track.is_drum
        columns = track.notes.numpy()
        onset = columns["time"].astype(np.int64)
        on, off = (tempo_map.seconds(ticks / resolution) for ticks in (onset, onset + columns["duration"]))
        voice = min(voices[source], 255)
        voices[source] += 1
        tables.append(Notes.of(on, off, columns["pitch"], columns["velocity"], track.program, track.is_drum, voice))
        presses += [(pedal.time, pedal.time + pedal.duration, source) for pedal in track.pedals]
    start, end, source = np.array(presses, np.int64).reshape(-1, 3).T
    return Score(
        Notes.concatenate(tables).sorted(),
        tempo_map=tempo_map,
        time_signatures=tuple(
            TimeSignature(metre.time / resolution, metre.numerator, metre.denominator)
            for metre in piece.time_signatures
        ),
        pedals=Pedals.of(tempo_map.seconds(start / resolution), tempo_map.seconds(end / resolution), source),
        has_metre=True,
    )
