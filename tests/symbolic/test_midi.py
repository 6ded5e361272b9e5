"""MIDI files: what is read is what is there, what is written is read back, and damage is met with mercy or one line."""

from __future__ import annotations

import os
import random
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import fields
from io import BytesIO
from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musictool.errors import InputError
from musictool.symbolic import midi
from musictool.symbolic.midi import inspect_midi, read_midi, write_midi
from musictool.symbolic.notes import KeySignature, Lyric, Notes, Pedals, Score, TempoMap, TimeSignature, Track
from musictool.symbolic.smf import scan
from musictool.symbolic.smf_score import from_events, to_score

END = b"\xff\x2f\x00"
NOTE = [(0, b"\x90\x3c\x40"), (480, b"\x80\x3c\x00")]  # half a second of middle C at the default tempo


def quantity(value: int) -> bytes:
    groups = [value & 127]
    while value := value >> 7:
        groups.append(value & 127 | 128)
    return bytes(reversed(groups))


def track(*events: tuple[int, bytes], end: bytes = b"\0" + END) -> bytes:
    body = b"".join(quantity(delta) + event for delta, event in events) + end
    return b"MTrk" + len(body).to_bytes(4, "big") + body


def midi_file(*tracks: bytes, kind: int = 1, division: int = 480) -> bytes:
    numbers = (kind, len(tracks), division)
    return b"MThd\0\0\0\x06" + b"".join(number.to_bytes(2, "big") for number in numbers) + b"".join(tracks)


def meta(kind: int, payload: bytes) -> bytes:
    return bytes([0xFF, kind]) + quantity(len(payload)) + payload


def rows(score: Score) -> list[tuple[float, float, int, int]]:
    """Onset, offset (to the millisecond), pitch, velocity."""
    notes = score.notes
    columns = (notes.onset_seconds.round(3), notes.offset_seconds.round(3), notes.pitch, notes.velocity)
    return list(zip(*(column.tolist() for column in columns)))


def scanned(data: bytes) -> Score:
    return to_score(from_events(scan(data)))


def is_parsed(data: bytes) -> bool:
    """Whether symusic reads the file."""
    return midi._parse(data) is not None


def assert_same(left: Score, right: Score) -> None:
    for part in ("notes", "pedals"):
        for column in fields(getattr(left, part)):
            ours, theirs = (getattr(getattr(score, part), column.name) for score in (left, right))
            assert ours.dtype == theirs.dtype, column.name
            assert ours.tolist() == theirs.tolist(), column.name
    assert left.tempo_map.start_quarters.tolist() == right.tempo_map.start_quarters.tolist()
    assert left.tempo_map.microseconds_per_quarter.tolist() == right.tempo_map.microseconds_per_quarter.tolist()
    for name in ("tracks", "time_signatures", "key_signatures", "lyrics", "ticks_per_quarter", "has_metre"):
        assert getattr(left, name) == getattr(right, name), name


def corpus_files() -> list[Path]:
    folder = os.environ.get("MTK_TEST_DATA")
    return sorted(Path(folder).rglob("*.mid")) if folder else []


# Notes


def test_note_offs_end_notes_first_in_first_out() -> None:
    on, off = b"\x90\x3c", b"\x80\x3c\x00"
    data = midi_file(track((0, on + b"\x01"), (240, on + b"\x02"), (240, off), (480, off)))
    assert rows(read_midi(data)) == [(0.0, 0.5, 60, 1), (0.25, 1.0, 60, 2)]
    assert inspect_midi(data).overlapping == 1


def test_notes_that_touch_do_not_overlap() -> None:
    data = midi_file(track((0, b"\x90\x3c\x01"), (480, b"\x90\x3c\x02"), (0, b"\x80\x3c\0"), (480, b"\x80\x3c\0")))
    assert rows(read_midi(data)) == [(0.0, 0.5, 60, 1), (0.5, 1.0, 60, 2)]
    assert inspect_midi(data).overlapping == 0


@pytest.mark.parametrize("hanging", [1, 2, 3])
def test_hanging_notes_last_to_the_end_of_their_track(hanging: int) -> None:
    ons = [(0, b"\x90\x3c" + bytes([velocity])) for velocity in range(1, hanging + 1)]
    data = midi_file(track(*ons, (960, b"\x90\x40\x01"), end=b"\0" + END), track((1920, b"\x91\x3c\x05")))
    assert rows(read_midi(data)) == [(0.0, 1.0, 60, velocity) for velocity in range(1, hanging + 1)]
    assert inspect_midi(data).hanging == hanging + 2


def test_orphan_offs_and_zero_lengths_are_counted() -> None:
    data = midi_file(track((0, b"\x80\x3c\0"), (0, b"\x90\x3c\x40"), (0, b"\x80\x3c\0"), (5, b"\x90\x3c\x00")))
    facts = inspect_midi(data)
    assert (facts.notes, facts.orphan_offs, facts.zero_length, facts.hanging) == (1, 2, 1, 0)
    assert rows(read_midi(data)) == [(0.0, 0.0, 60, 64)]


def test_tracks_are_channels_and_programs_of_file_tracks() -> None:
    data = midi_file(
        track(
            (0, meta(3, b"Band")),
            (0, b"\x99\x24\x40"),
            (0, b"\xc0\x05"),
            *NOTE,
            (0, b"\x89\x24\0"),
            (0, b"\xc0\x06"),
            *NOTE,
        ),
        track((0, meta(3, "Flöte".encode())), *NOTE),
    )
    score = read_midi(data)
    assert is_parsed(data)
    assert score.tracks == (Track("Band", 5), Track("Band", 6), Track("Band", 0, True), Track("Flöte", 0))
    assert score.notes.program.tolist() == [0, 5, 0, 6]
    assert score.notes.is_drum.tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("Flöte".encode(), "Flöte"),
        ("Flöte".encode("latin-1"), "Flöte"),
        ("mélodie".encode("latin-1"), "mélodie"),
        ("ピアノ".encode("cp932"), "ピアノ"),
        ("主旋律".encode("cp932"), "主旋律"),
        ("주선율".encode(), "주선율"),
        (b"\xff\xfe\x80", "\xff\xfe\x80"),
        (b"Bass\0\0", "Bass"),
    ],
)
def test_text_is_decoded(raw: bytes, text: str) -> None:
    score = read_midi(midi_file(track((0, meta(3, raw)), (10, meta(5, raw)), *NOTE)))
    assert score.tracks == (Track(text),)
    assert [lyric.text for lyric in score.lyrics] == [text]
    assert read_midi(midi_file(track((0, meta(3, raw)), *NOTE))).tracks == (Track(text),)


# Metre and pedal


def test_tempo_and_signatures_are_kept_where_they_stand() -> None:
    data = midi_file(
        track(
            (0, meta(0x51, b"\x0f\x42\x40")),
            (0, meta(0x58, b"\x01\x02\x18\x08")),
            (0, meta(0x58, b"\x03\x03\x18\x08")),
            (0, meta(0x59, b"\xfd\x01")),
            (960, meta(0x51, b"\x07\xa1\x20")),
        ),
        track((960, b"\x90\x3c\x40"), (480, b"\x80\x3c\0")),
    )
    score = read_midi(data)
    assert is_parsed(data)
    assert score.has_metre
    assert score.time_signatures == (TimeSignature(0.0, 3, 8),)
    assert score.key_signatures == (KeySignature(0.0, -3, True),)
    assert rows(score) == [(2.0, 2.5, 60, 64)]


def test_file_without_tempo_or_metre_says_so() -> None:
    assert not read_midi(midi_file(track(*NOTE))).has_metre


@pytest.mark.parametrize("channel", [0, 3])
@pytest.mark.parametrize("is_released", [True, False])
def test_pedal_presses_are_kept(channel: int, is_released: bool) -> None:
    down, up = bytes([0xB0 | channel, 64, 127]), bytes([0xB0 | channel, 64, 0])
    on, off = bytes([0x90 | channel, 60, 64]), bytes([0x80 | channel, 60, 0])
    events = [(0, on), (480, off), (0, down), (480, up if is_released else b"\xff\x01\0")]
    data = midi_file(track(*events))
    score = read_midi(data)
    assert is_parsed(data)
    assert (score.pedals.onset_seconds.tolist(), score.pedals.offset_seconds.tolist()) == ([0.5], [1.0])
    assert_same(score, scanned(data))


def test_pedal_stays_with_the_program_it_was_pressed_under() -> None:
    data = midi_file(
        track(
            (0, b"\xc0\x05"),
            *NOTE,
            (0, b"\xb0\x40\x7f"),
            (480, b"\xb0\x40\x00"),
            (0, b"\xc0\x06"),
            *NOTE,
            (0, b"\xb0\x40\x7f"),
        )
    )
    score = read_midi(data)
    assert score.pedals.track.tolist() == [0]
    assert score.pedals.onset_seconds.tolist() == [0.5]


@pytest.mark.parametrize("count", [2, 23, 24, 100])
def test_last_of_several_tempos_at_one_tick_counts(count: int) -> None:
    tempos = [(0, meta(0x51, tempo.to_bytes(3, "big"))) for tempo in range(1_000_000, 1_000_000 + count)]
    score = read_midi(midi_file(track(*tempos, *NOTE)))
    assert score.tempo_map.microseconds_per_quarter.tolist() == [1_000_000 + count - 1]


# Kinds of file


@pytest.mark.parametrize(
    ("rate", "per_frame", "ticks_a_second"),
    [(24, 80, 1920), (25, 40, 1000), (29, 100, 3000 / 1.001), (30, 80, 2400)],
)
def test_frame_based_time_ignores_tempo(rate: int, per_frame: int, ticks_a_second: float) -> None:
    division = (256 - rate) << 8 | per_frame
    data = midi_file(track((0, meta(0x51, b"\x01\x00\x00")), (600, NOTE[0][1]), (1200, NOTE[1][1])), division=division)
    score = read_midi(data)
    assert score.notes.onset_seconds[0] == pytest.approx(600 / ticks_a_second)
    assert score.notes.offset_seconds[0] == pytest.approx(1800 / ticks_a_second)
    assert inspect_midi(data).frame_rate == rate


def test_format_2_plays_its_sequences_one_after_another() -> None:
    slow = track((0, meta(0x51, b"\x0f\x42\x40")), *NOTE, end=quantity(480) + END)
    score = read_midi(midi_file(slow, track(*NOTE), slow, kind=2))
    assert [row[:2] for row in rows(score)] == [(0.0, 1.0), (2.0, 2.5), (2.5, 3.5)]


def test_riff_wrapped_file_is_read() -> None:
    inner = midi_file(track(*NOTE))
    content = b"RMIDdata" + len(inner).to_bytes(4, "little") + inner + b"DISP\x04\0\0\0\x01\0\0\0"
    data = b"RIFF" + len(content).to_bytes(4, "little") + content
    assert_same(read_midi(data), read_midi(inner))
    assert inspect_midi(data).problems == ["the file is wrapped in RIFF (byte 0)"]


# Mercy

SOUND = midi_file(track(*NOTE))
TWO = midi_file(track(*NOTE), track(*NOTE))
HEADER = SOUND[:14]

DAMAGED = {
    "bytes before the header": b"\0" * 128 + SOUND,
    "the header is 8 bytes long": b"MThd\0\0\0\x08" + SOUND[8:14] + b"\0\0" + SOUND[14:],
    "the header is 4 bytes long": b"MThd\0\0\0\x04" + SOUND[8:],
    "unknown format 7": HEADER[:9] + b"\x07" + SOUND[10:],
    "the header promises 9 tracks": HEADER[:11] + b"\x09" + SOUND[12:],
    "bytes after the last track": SOUND + b"\xde\xad\xbe\xef\0\0",
    "bytes between tracks": HEADER + b"\0\0\0" + SOUND[14:],
    "bytes after the end of a track": midi_file(track(*NOTE, end=b"\0" + END + b"\0\0\0\0")),
    "a track has no end-of-track event": midi_file(track(*NOTE, end=b"")),
    "a track is cut short": midi_file(track(*NOTE, end=b"\0\x90\x3c")),
    "a track is shorter than its length": SOUND[:21] + b"\xff" + SOUND[22:],
    "a track is longer than its length": SOUND[:21] + b"\x06" + SOUND[22:],
    "data bytes without a status byte": midi_file(track((0, b"\x3c\x40"), *NOTE)),
    "running status across a system message": midi_file(
        track(NOTE[0], (0, b"\xf0\x03\x01\x02\xf7"), (480, b"\x3c\x00"))
    ),
    "a system message that belongs on a wire": midi_file(track((0, b"\xf2\x01\x02"), *NOTE)),
    "a tempo of nothing": midi_file(track((0, meta(0x51, b"\0\0\0")), (0, meta(0x51, b"\x05")), *NOTE)),
    "a time signature without sense": midi_file(
        track((0, meta(0x58, b"\0\x02\x18\x08")), (0, meta(0x58, b"\x04\x28\x18\x08")), (0, meta(0x58, b"\x04")), *NOTE)
    ),
    "a key signature without sense": midi_file(track((0, meta(0x59, b"\x70\x05")), (0, meta(0x59, b"\x01")), *NOTE)),
}


@pytest.mark.parametrize("problem", DAMAGED)
def test_damage_around_a_note_is_repaired_and_told(problem: str) -> None:
    score = read_midi(DAMAGED[problem])
    assert rows(score) == [(0.0, 0.5, 60, 64)]
    assert score.time_signatures == score.key_signatures == ()
    facts = inspect_midi(DAMAGED[problem])
    assert facts.needed_mercy
    assert any(line.startswith(problem) for line in facts.problems), facts.problems


def test_middle_track_of_wrong_length_does_not_hide_the_next() -> None:
    for wrong in (0, 3, 9, 40, 1 << 20):
        data = TWO[:18] + wrong.to_bytes(4, "big") + TWO[22:]
        assert rows(read_midi(data)) == [(0.0, 0.5, 60, 64)] * 2


def test_values_out_of_range_are_clipped() -> None:
    data = midi_file(track((0, b"\x90\x3c\xff"), (480, b"\x80\x3c\0")))
    assert rows(read_midi(data)) == [(0.0, 0.5, 60, 127)]


def test_foreign_chunks_are_skipped_in_silence() -> None:
    data = HEADER + b"XFIH\0\0\0\x02ab" + SOUND[14:]
    assert rows(read_midi(data)) == [(0.0, 0.5, 60, 64)]
    assert not inspect_midi(data).needed_mercy


def test_sysex_before_a_whole_event_needs_no_mercy() -> None:
    data = midi_file(track((0, b"\xf0\x05\x7e\x7f\x09\x01\xf7"), *NOTE))
    assert is_parsed(data)
    assert rows(read_midi(data)) == [(0.0, 0.5, 60, 64)]


def test_every_cut_of_a_file_is_read_or_refused() -> None:
    for length in range(18):
        with pytest.raises(InputError):
            read_midi(TWO[:length])
    for length in range(18, len(TWO)):
        assert len(read_midi(TWO[:length]).notes) <= 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "not a MIDI file"),
        (b"MThd\0\0\0\x06\0\x01", "cut short (byte 10)"),
        (HEADER, "no track in this MIDI file"),
        (midi_file(track(*NOTE), division=0), "division of 0"),
        (midi_file(track(*NOTE), division=0x8028), "division of 128 frames by 40"),
        (midi_file(track((0x0FFFFFFF, NOTE[0][1]), NOTE[1])), "hours is over the limit of 24"),
        (
            midi_file(track((0, meta(0x51, b"\0\0\1")), (0x0FFFFFFF, NOTE[0][1]), NOTE[1]), division=1),
            "bars is over the limit",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        read_midi(data)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_status == 3


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lost\.mid"):
        read_midi(tmp_path / "lost.mid")
    (tmp_path / "bad.mid").write_bytes(b"bad")
    with pytest.raises(InputError, match=r"bad\.mid"):
        read_midi(tmp_path / "bad.mid")


def test_program_changes_cannot_make_the_parser_eat_memory() -> None:
    events = b"".join(
        bytes([0, 0xC0 | n % 16, n // 16 % 128, 0, 0x90 | n % 16, 60, 64, 1, 0x80 | n % 16, 60, 0])
        for n in range(20_000)
    )
    data = midi_file(b"MTrk" + (len(events) + 4).to_bytes(4, "big") + events + b"\0" + END)
    assert not is_parsed(data)
    assert len(read_midi(data).notes) == 20_000


# Writing

grid_notes = st.lists(
    st.tuples(
        st.integers(0, 500),  # onset, 10 ms
        st.integers(0, 60),  # length, 10 ms
        st.integers(59, 61),
        st.integers(1, 127),
        st.sampled_from([0, 40]),
        st.booleans(),
        st.integers(0, 2),
    ),
    max_size=60,
)
tempo_maps = st.lists(st.tuples(st.integers(0, 40), st.integers(120_000, 3_000_000)), max_size=5).map(
    lambda changes: TempoMap.of(*zip(*changes)) if changes else TempoMap.constant()
)


def on_grid(notes: Notes) -> Counter[tuple]:
    columns = (
        np.rint(notes.onset_seconds * 100).astype(int),
        np.rint(notes.offset_seconds * 100).astype(int),
        notes.pitch,
        notes.velocity,
        notes.program,
        notes.is_drum,
    )
    return Counter(zip(*(column.tolist() for column in columns)))


@given(grid_notes, tempo_maps, st.sampled_from([1, 24, 96, 220, 480, 960, 32767]))
@settings(deadline=None)
def test_midi_round_trip_keeps_every_note(rows: list[tuple], tempo_map: TempoMap, resolution: int) -> None:
    notes = Notes.empty()
    if rows:
        onset, length, *others = (np.array(column) for column in zip(*rows))
        notes = Notes.of(onset / 100, (onset + length) / 100, *others)
    score = Score(notes, (Track("a"), Track("b"), Track("c")), tempo_map, ticks_per_quarter=resolution)
    data = write_midi(score)
    back = read_midi(data)
    assert on_grid(back.notes) == on_grid(notes)
    assert write_midi(score) == data
    assert_same(back, scanned(data))
    assert inspect_midi(data).problems == []


def full_score() -> Score:
    return Score(
        notes=Notes.of(
            [0, 0.5, 1, 1],
            [0.5, 1, 1.5, 1.01],
            [60, 60, 64, 36],
            [64, 65, 66, 67],
            [0, 0, 40, 0],
            [0, 0, 0, 1],
            [0, 0, 1, 2],
        ),
        tracks=(Track("Grüße"), Track("二胡", 40), Track("Kit", 0, True), Track("Words")),
        tempo_map=TempoMap.of([0, 2.5], [500_000, 650_000]),
        time_signatures=(TimeSignature(0.0, 3, 4), TimeSignature(3.0, 6, 8)),
        key_signatures=(KeySignature(0.0, -3, True),),
        pedals=Pedals.of([0.25, 1.25], [0.75, 2.0], [0, 0]),
        lyrics=(Lyric(0.0, "la"), Lyric(0.5, "là"), Lyric(1.0, "ラ", 3)),
        has_metre=True,
    )


def test_midi_round_trip_keeps_names_metre_pedals_and_words() -> None:
    score = full_score()
    back = read_midi(write_midi(score))
    assert (back.tracks, back.time_signatures, back.key_signatures) == (
        score.tracks,
        score.time_signatures,
        score.key_signatures,
    )
    assert back.tempo_map.start_quarters.tolist() == score.tempo_map.start_quarters.tolist()
    assert [(lyric.text, lyric.track) for lyric in back.lyrics] == [(lyric.text, lyric.track) for lyric in score.lyrics]
    assert np.allclose(back.pedals.onset_seconds, score.pedals.onset_seconds, atol=5e-4)
    assert np.allclose(back.pedals.offset_seconds, score.pedals.offset_seconds, atol=5e-4)
    assert back.has_metre
    again = read_midi(write_midi(back))
    assert again.notes.onset_seconds.tolist() == back.notes.onset_seconds.tolist()


def test_metre_that_was_not_given_is_not_written() -> None:
    assert not read_midi(write_midi(Score(Notes.of(0, 1, 60)))).has_metre


def test_melodic_parts_get_channels_of_their_own() -> None:
    notes = Notes.of(np.zeros(16), np.ones(16), 60, 64, np.arange(16), np.arange(16) == 3, np.arange(16))
    data = write_midi(Score(notes, tuple(Track(str(n)) for n in range(16))))
    channels = [
        message.channel
        for messages in mido.MidiFile(file=BytesIO(data)).tracks
        for message in messages
        if message.type == "program_change"
    ]
    assert sorted(channels) == list(range(16))
    assert channels[3] == 9


def test_more_parts_than_channels_are_still_read_back() -> None:
    notes = Notes.of(np.zeros(40), np.ones(40), 60, 64, np.arange(40) % 20, False, np.arange(40))
    score = Score(notes, tuple(Track(str(n)) for n in range(40)))
    assert on_grid(read_midi(write_midi(score)).notes) == on_grid(notes)


@pytest.mark.parametrize(
    "score",
    [
        Score(Notes.of(0, 1, 128)),
        Score(Notes.of(0, 1, 60, 0)),
        Score(Notes.of(0, np.nan, 60)),
        Score(Notes.of(0, 1, 60), time_signatures=(TimeSignature(0, 4, 6),)),
        Score(Notes.of(0, 1, 60), key_signatures=(KeySignature(0, 8, False),)),
        Score(Notes.of(0, 1e9, 60)),
    ],
)
def test_what_midi_cannot_hold_is_refused(score: Score) -> None:
    with pytest.raises(InputError):
        write_midi(score)


def test_pretty_midi_round_trip() -> None:
    pytest.importorskip("pretty_midi")
    from musictool.symbolic.pretty import from_pretty_midi, to_pretty_midi

    score = full_score()
    back = from_pretty_midi(to_pretty_midi(score))
    assert on_grid(back.notes) == on_grid(score.notes)
    assert (back.time_signatures, back.key_signatures) == (score.time_signatures, score.key_signatures)
    assert back.tracks == score.tracks[:3]
    assert back.pedals.onset_seconds.tolist() == score.pedals.onset_seconds.tolist()
    assert back.tempo_map.microseconds_per_quarter.tolist() == score.tempo_map.microseconds_per_quarter.tolist()


# Agreement with other readings


def mido_notes(data: bytes) -> Iterator[tuple[int, int, int, int, int, bool]]:
    """Onset and offset ticks, pitch, velocity, program, is_drum, by a reader that shares nothing with ours."""
    for messages in mido.MidiFile(file=BytesIO(data)).tracks:
        tick, programs, sounding = 0, [0] * 16, {}
        for message in messages:
            tick += message.time
            if message.type == "program_change":
                programs[message.channel] = message.program
            elif message.type == "note_on" and message.velocity:
                note = (tick, message.velocity, programs[message.channel])
                sounding.setdefault((message.channel, message.note), deque()).append(note)
            elif message.type in ("note_on", "note_off") and sounding.get((message.channel, message.note)):
                onset, velocity, program = sounding[message.channel, message.note].popleft()
                yield onset, tick, message.note, velocity, program, message.channel == 9
        for (channel, pitch), notes in sounding.items():
            yield from ((on, tick, pitch, vel, prog, channel == 9) for on, vel, prog in notes if tick > on)


@pytest.mark.skipif(not corpus_files(), reason="$MTK_TEST_DATA is not set")
def test_corpora_are_read_as_mido_reads_them_and_as_scanned() -> None:
    files = corpus_files()
    for path in random.Random(0).sample(files, min(60, len(files))):
        data = path.read_bytes()
        score = read_midi(data)
        notes, tempo_map, resolution = score.notes, score.tempo_map, score.ticks_per_quarter
        ticks = [
            np.rint(tempo_map.quarters(seconds) * resolution).astype(int).tolist()
            for seconds in (notes.onset_seconds, notes.offset_seconds)
        ]
        columns = (notes.pitch, notes.velocity, notes.program, notes.is_drum)
        ours = Counter(zip(*ticks, *(column.tolist() for column in columns)))
        assert ours == Counter(mido_notes(data)), path
        assert_same(score, scanned(data))
        keys = [getattr(score.notes, field.name).tolist() for field in fields(Notes)]
        assert keys == [getattr(score.notes.sorted(), field.name).tolist() for field in fields(Notes)]
