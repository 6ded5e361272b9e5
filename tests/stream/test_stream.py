"""The token stream: what is written is read back, and nothing broken passes."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import pytest

from musictool.errors import InputError
from musictool.stream.files import compressing, decompressing
from musictool.stream.reader import StreamReader
from musictool.stream.records import LINE_BYTES_MAX, Failure, Head, ItemFailed, StreamError
from musictool.stream.writer import StreamWriter
from musictool.symbolic.schemes import find_scheme, lookup_events

TATUM = find_scheme("tatum").vocabulary


def head(name: str, number: int | None = None, of: int | None = None, **changes) -> Head:
    fields = {"kind": "events", "vocab": "tatum", "vocab_sha": TATUM.fingerprint, "meta": {"duration_seconds": 1.5}}
    return Head(name, number=number, of=of, **(fields | changes))


def small_stream(names=None) -> tuple[bytes, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    items = [rng.integers(0, len(TATUM), size).astype(np.int32) for size in (17, 0, 9)]
    sink = io.BytesIO()
    writer = StreamWriter(sink, names=names)
    for number, ids in enumerate(items, 1):
        with writer.item(head(f"take {number}", number, len(items), made=({"command": "tokenize"},))) as item:
            item.source_sha = "ab" * 32
            item.write(ids[:5])
            item.write(ids[5:])
    return sink.getvalue(), items


def read(data: bytes) -> list[np.ndarray]:
    reader = StreamReader(io.BytesIO(data), lookup_events)
    return [np.concatenate([np.zeros(0, np.int32), *item.chunks()]) for item in reader]


@pytest.mark.parametrize("names", [None, TATUM], ids=["ids", "names"])
def test_what_is_written_is_read_back(names):
    data, items = small_stream(names)
    for got, wrote in zip(read(data), items, strict=True):
        np.testing.assert_array_equal(got, wrote)


def test_heads_and_closing_lines_survive():
    data, items = small_stream()
    reader = StreamReader(io.BytesIO(data), lookup_events)
    for number, (item, ids) in enumerate(zip(reader, items, strict=True), 1):
        item.skip()
        assert (item.head.item, item.head.number, item.head.of) == (f"take {number}", number, 3)
        assert item.head.made == ({"command": "tokenize"},)
        assert item.head.meta == {"duration_seconds": 1.5}
        assert item.closing.count == len(ids)
        assert item.closing.sha == hashlib.sha256(ids.astype("<i4").tobytes()).hexdigest()
        assert item.closing.source_sha == "ab" * 32


def test_a_stream_cut_anywhere_is_refused():
    data, _ = small_stream()
    for length in range(len(data)):
        with pytest.raises(StreamError, match=r"line \d+"):
            read(data[:length])


def test_no_flipped_bit_passes():
    data, _ = small_stream()
    for position in range(len(data)):
        for bit in (0, 2, 5, 7):
            broken = bytearray(data)
            broken[position] ^= 1 << bit
            with pytest.raises(StreamError, match=r"line \d+"):
                read(bytes(broken))


def test_streams_join_end_to_end():
    data, items = small_stream()
    assert len(read(data + data)) == 2 * len(items)


def line(**fields) -> bytes:
    return json.dumps(fields).encode() + b"\n"


PLAIN_HEAD = {"mtk": 1, "item": "hand made", "kind": "events", "vocab": "tatum", "vocab_sha": TATUM.fingerprint}


def plain_end(ids: list[int]) -> bytes:
    return line(end=1, n=len(ids), sha=hashlib.sha256(np.array(ids, "<i4").tobytes()).hexdigest())


def test_a_stream_written_by_hand_after_the_format_is_read():
    data = (
        line(**PLAIN_HEAD, unknown="ignored") + line(t=[1, 2]) + line(w=[TATUM.token_names[3]]) + plain_end([1, 2, 3])
    )
    np.testing.assert_array_equal(read(data)[0], [1, 2, 3])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (line(**PLAIN_HEAD), "ends inside the item"),
        (line(**PLAIN_HEAD) * 2, "its end is missing"),
        (line(**PLAIN_HEAD) + line(t=[1]) + plain_end([2]), "sha256"),
        (line(**PLAIN_HEAD) + line(t=[1]) + plain_end([1, 1]), "1 tokens"),
        (line(**PLAIN_HEAD) + line(t=[len(TATUM)]) + plain_end([len(TATUM)]), "not in vocabulary"),
        (line(**PLAIN_HEAD) + line(t=[-1]) + plain_end([-1]), "not in vocabulary"),
        (line(**PLAIN_HEAD) + line(t=[1.5]) + plain_end([1]), "no list of integers"),
        (line(**PLAIN_HEAD) + line(t=[True]) + plain_end([1]), "no list of integers"),
        (line(**PLAIN_HEAD) + line(t=[[1], [2]]) + plain_end([1, 2]), "no list of integers"),
        (line(**PLAIN_HEAD) + line(t=[[1], 2]) + plain_end([1, 2]), "no list of integers"),
        (line(**PLAIN_HEAD) + line(t=[1 << 70]) + plain_end([1]), "no JSON object|no list|out of range"),
        (line(**PLAIN_HEAD) + line(t=[1 << 40]) + plain_end([1]), "out of range"),
        (line(**PLAIN_HEAD) + line(w=["NoteOn_999"]) + plain_end([1]), "no token"),
        (line(**PLAIN_HEAD) + line(c=[[1]]) + plain_end([1]), "no line of events"),
        (line(**PLAIN_HEAD) + b'{"t":[1,,2]}\n' + plain_end([1, 2]), "no JSON object"),
        (line(**PLAIN_HEAD) + b'{"t":[1]}' + plain_end([1]), "no JSON object"),
        (line(**PLAIN_HEAD) + line(end=1, n="1", sha=""), "'n' is no int"),
        (line(**{**PLAIN_HEAD, "mtk": 2}), "version"),
        (line(**{**PLAIN_HEAD, "kind": "smells"}), "unknown kind"),
        (line(**{**PLAIN_HEAD, "vocab": "klingon"}), "unknown vocabulary"),
        (line(**{**PLAIN_HEAD, "vocab_sha": "00"}), "fingerprint"),
        (line(**{**PLAIN_HEAD, "item": ""}), "name"),
        (line(**{**PLAIN_HEAD, "made": [1]}), "made"),
        (line(**PLAIN_HEAD, number=1, of=2) + plain_end([]), "after item 1 of 2"),
        (line(**PLAIN_HEAD, number=2, of=2) + plain_end([]), "missing"),
        (line(**PLAIN_HEAD, number=3, of=2) + plain_end([]), "no such place"),
        (b"[1]\n", "no JSON object"),
        (b"MThd\x00\x00\x00\x06\n", "no JSON object"),
        (b'{"t":[' + b"1," * LINE_BYTES_MAX + b"1]}\n", "MiB"),
    ],
)  # fmt: skip
def test_broken_streams_are_refused_with_item_and_line(data, said):
    with pytest.raises(StreamError, match=said) as error:
        read(data)
    assert "line " in error.value.context
    assert ("hand made" in error.value.context) == (b"hand made" in data)


def test_codes_are_read_back_however_they_are_split():
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 2048, (4, 3000)).astype(np.int32)
    sha = set()
    for cuts in ([], [1, 700], [1024]):
        sink = io.BytesIO()
        with StreamWriter(sink).item(head("song", kind="codes", vocab="some codec")) as item:
            for part in np.split(codes, cuts, axis=1):
                item.write(part)
        read_item = next(iter(StreamReader(io.BytesIO(sink.getvalue()), lambda head: None)))
        np.testing.assert_array_equal(np.concatenate(list(read_item.chunks()), axis=1), codes)
        sha.add(read_item.closing.sha)
    assert sha == {hashlib.sha256(codes.T.astype("<i4").tobytes()).hexdigest()}


def code_stream(scales=(0.1, 3e-5, 2.5)) -> bytes:
    """An item of codes in blocks of which some begin segments, one of them long enough for two lines."""
    sink = io.BytesIO()
    with StreamWriter(sink).item(head("song", kind="codes", vocab="some codec")) as item:
        item.write(np.arange(8000).reshape(2, 4000), scales[:2])
        item.write(np.zeros((2, 10), np.int32))
        item.write(np.ones((2, 10), np.int32), scales[2:])
        item.samples, item.source_samples = 1_286_400, 2_363_760
    return sink.getvalue()


def code_item(data: bytes):
    return next(iter(StreamReader(io.BytesIO(data), lambda head: None)))


def test_scales_and_lengths_survive():
    item = code_item(code_stream())
    chunks = list(item.code_chunks())
    assert [chunk.scales.tolist() for chunk in chunks] == [np.float32([0.1, 3e-5]).tolist(), [], [], [2.5]]
    assert np.concatenate([chunk.codes for chunk in chunks], axis=1).shape == (2, 4020)
    assert (item.closing.samples, item.closing.source_samples) == (1_286_400, 2_363_760)


def test_the_digest_of_codes_holds_their_scales():
    item = code_item(code_stream())
    codes, scales = zip(*item.code_chunks())
    digest = hashlib.sha256(np.ascontiguousarray(np.concatenate(codes, axis=1).T, "<i4").tobytes())
    digest.update(np.concatenate(scales).astype("<f4").tobytes())
    assert item.closing.sha == digest.hexdigest()
    with pytest.raises(StreamError, match="sha256"):
        list(code_item(code_stream().replace(b"[2.5]", b"[2.6]")).chunks())
    assert code_item(code_stream(())).skip() is None


def test_every_scale_of_32_bits_survives_the_text():
    bits = np.random.default_rng(0).integers(1, 0x7149_0000, 4000).astype("<u4")
    scales = bits.view("<f4")
    sink = io.BytesIO()
    with StreamWriter(sink).item(head("song", kind="codes", vocab="some codec")) as item:
        item.write(np.zeros((1, 1), np.int32), scales)
    (chunk,) = code_item(sink.getvalue()).code_chunks()
    np.testing.assert_array_equal(chunk.scales.view("<u4"), bits)


@pytest.mark.parametrize("scales", ["0.5", "[0]", "[-1]", "[1e31]", '["1"]', "[true]", "[null]", "[[1]]"])
def test_scales_that_are_none_are_refused(scales):
    data = line(**{**PLAIN_HEAD, "kind": "codes"}) + b'{"c":[[1]],"scales":%s}\n' % scales.encode()
    with pytest.raises(StreamError, match="scale"):
        code_item(data).skip()


@pytest.mark.parametrize("end", [{"samples": -1}, {"samples": "9"}, {"samples": 1.5}, {"source_samples": True}])
def test_lengths_that_are_none_are_refused(end):
    data = line(**{**PLAIN_HEAD, "kind": "codes"}) + line(end=1, n=0, sha=hashlib.sha256(b"").hexdigest(), **end)
    with pytest.raises(StreamError, match=r"samples|length"):
        code_item(data).skip()


def test_codes_are_held_to_their_codebooks_size_and_fingerprint():
    class Codebooks:
        fingerprint = TATUM.fingerprint

        def __len__(self):
            return 4000

    data = code_stream()
    with pytest.raises(StreamError, match=r"code [4-7]... is out of range"):
        next(iter(StreamReader(io.BytesIO(data), lambda head: Codebooks()))).skip()
    Codebooks.fingerprint = "another"
    with pytest.raises(StreamError, match="codec 'some codec' is another one"):
        next(iter(StreamReader(io.BytesIO(data), lambda head: Codebooks())))


def test_an_item_that_is_left_in_its_middle_spoils_none_after_it():
    data, items = small_stream()
    for left in range(3):
        reader = StreamReader(io.BytesIO(data), lookup_events)
        for item, ids in zip(reader, items, strict=True):
            for _, chunk in zip(range(left), item.chunks()):
                assert chunk.tolist() in (ids[:5].tolist(), ids[5:].tolist())
            item.skip()
            assert item.closing.count == len(ids)


def test_a_row_too_many_in_codes_is_refused():
    data = line(**{**PLAIN_HEAD, "kind": "codes"}) + line(c=[[1], [2]]) + line(c=[[1]])
    with pytest.raises(StreamError, match="1 codebook rows after 2"):
        for item in StreamReader(io.BytesIO(data), lambda head: None):
            item.skip()


def test_events_are_refused_where_codes_come():
    data = line(**{**PLAIN_HEAD, "kind": "codes"})
    with pytest.raises(StreamError, match="codes of a codec"):
        read(data)


def test_an_error_inside_an_item_closes_it_as_failed_and_the_next_goes_on():
    sink = io.BytesIO()
    writer = StreamWriter(sink)
    with pytest.raises(InputError), writer.item(head("one", 1, 2)) as item:
        item.write(np.arange(3))
        raise InputError("no sound", context="one.wav", hint="make some", code="silent")
    with writer.item(head("two", 2, 2)) as item:
        item.write(np.arange(3))
    reader = iter(StreamReader(io.BytesIO(sink.getvalue()), lookup_events))
    failed = next(reader)
    with pytest.raises(ItemFailed) as error:
        list(failed.chunks())
    assert error.value.failure == Failure("silent", "no sound (one.wav)", "make some")
    assert np.concatenate(list(next(reader).chunks())).tolist() == [0, 1, 2]


def test_reading_starts_before_the_writer_ends():
    data, _ = small_stream()
    first_data_line = data.index(b"\n", data.index(b'{"t":')) + 1

    class Stalling(io.RawIOBase):
        """Gives a head and a line of tokens, and then must not be asked for more."""

        def __init__(self):
            self.rest = data[:first_data_line]

        def readable(self):
            return True

        def readinto(self, buffer):
            assert self.rest, "the reader asked for more before it gave what it had"
            count = min(len(buffer), len(self.rest))
            buffer[:count], self.rest = self.rest[:count], self.rest[count:]
            return count

    item = next(iter(StreamReader(io.BufferedReader(Stalling()), lookup_events)))
    assert len(next(item.chunks())) == 5


@pytest.mark.parametrize("suffix", [".mtk", ".mtk.gz", ".mtk.zst"])
def test_compressed_streams_are_read_back_and_refused_when_cut(suffix):
    data, _ = small_stream()

    def pack() -> bytes:
        sink = io.BytesIO()
        with compressing(sink, f"x{suffix}") as plain:
            plain.write(data)
        return sink.getvalue()

    packed = pack()
    assert pack() == packed, "the same bytes in give the same bytes out"
    assert (packed == data) == (suffix == ".mtk")

    def unpacked(packed: bytes) -> list[np.ndarray]:
        with decompressing(io.BytesIO(packed), "x") as plain:
            return [np.concatenate([np.zeros(0), *i.chunks()]) for i in StreamReader(plain, lookup_events)]

    assert len(unpacked(packed)) == 3
    assert len(unpacked(packed + packed)) == 6
    for length in range(len(packed)):
        with pytest.raises(StreamError):
            unpacked(packed[:length])
