"""`mtk encode` as a whole command, with small random codecs: what goes in, what comes out, and what goes wrong."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.models.registry import load_preset
from tests.commands.codes import RATE, items_of, sound, wav
from tests.small_models import SMALL_STEREO_CODEC, install_codec

Run = Callable[..., tuple[int, bytes, str]]


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """A store with a mono codec under the name of the one that ships, and a stereo one."""
    home = tmp_path_factory.mktemp("home")
    install_codec(home)
    install_codec(home, "stereo", SMALL_STEREO_CODEC)
    return home


@pytest.fixture
def run(home) -> Run:
    """Run `mtk ARGUMENT…`: exit status, standard output, standard error."""

    def run(*arguments: object, stdin: bytes = b"") -> tuple[int, bytes, str]:
        environment = Environment(io.BytesIO(stdin), io.BytesIO(), io.StringIO(), {"MTK_HOME": str(home)})
        status = main([str(argument) for argument in arguments], environment)
        return status, environment.stdout.getvalue(), environment.stderr.getvalue()

    return run


@pytest.fixture
def takes(tmp_path) -> Path:
    """Three takes of different kinds."""
    folder = tmp_path / "takes"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.wav").write_bytes(wav(sound(1.3)))
    (folder / "b.flac").write_bytes(wav(sound(0.4, 44_100, 2), 44_100, format="FLAC"))
    (folder / "inner" / "c.ogg").write_bytes(wav(sound(2.1, 16_000), 16_000, format="OGG", subtype="VORBIS"))
    return folder


def test_the_head_says_what_the_codes_are(run, takes):
    status, stream, errors = run("encode", takes / "b.flac", "--codebooks", 3)
    assert (status, errors) == (0, "")
    item, codes = items_of(stream)["b"]
    head = item.head
    assert codes.shape == (3, 30)
    assert (head.kind, head.vocab, head.number, head.of) == ("codes", "codec-24khz", 1, 1)
    assert head.meta == {
        "rate_hz": 24_000,
        "channels": 1,
        "codebooks": 3,
        "codebook_size": 64,
        "frame_rate_hz": 75.0,
        "hop_samples": 320,
        "source": {"rate_hz": 44_100, "channels": 2},
        "duration_seconds": 0.4,
    }
    (stage,) = head.made
    assert (stage["command"], stage["codebooks"], stage["bandwidth_kbps"]) == ("encode", 3, 1.35)
    assert head.vocab_sha == stage["model_sha256"]
    assert (item.closing.samples, item.closing.source_samples) == (9600, 17_640)
    assert item.closing.source_sha == hashlib.sha256((takes / "b.flac").read_bytes()).hexdigest()


def test_codes_are_those_of_the_model_itself(run, home, takes):
    import torch

    from musictool.checkpoints.store import Store
    from musictool.inference.model_files import load_model

    model = load_model("codec-24khz", store=Store(home)).model
    samples, _ = soundfile.read(takes / "a.wav", dtype="float32")
    with torch.inference_mode():
        expected = model.encode(torch.from_numpy(samples)[None, None], 8)[0].numpy()
    np.testing.assert_array_equal(items_of(run("encode", takes / "a.wav")[1])["a"][1], expected)


def test_codes_vary_with_the_sound(run):
    codes = [items_of(run("encode", stdin=wav(sound(0.5, seed=seed)))[1])["stdin"][1] for seed in (0, 1)]
    assert len(np.unique(codes[0])) > 8
    assert (codes[0] != codes[1]).mean() > 0.1


@pytest.mark.parametrize(
    ("option", "value", "rows"), [("--codebooks", 1, 1), ("--bandwidth", 0.9, 2), ("--bandwidth", 3.6, 8)]
)
def test_fewer_codebooks_are_the_first_of_all(run, takes, option, value, rows):
    every = items_of(run("encode", takes / "a.wav")[1])["a"][1]
    some = items_of(run("encode", takes / "a.wav", option, value)[1])["a"][1]
    np.testing.assert_array_equal(some, every[:rows])


def test_a_file_and_a_pipe_of_any_container_give_the_same_codes(run, takes):
    samples = sound(1.0)
    expected = items_of(run("encode", stdin=wav(samples))[1])["stdin"][1]
    for options in ({"format": "FLAC"}, {"format": "AIFF"}, {"format": "CAF"}):
        np.testing.assert_array_equal(items_of(run("encode", stdin=wav(samples, **options))[1])["stdin"][1], expected)
    np.testing.assert_array_equal(items_of(run("encode", "-", stdin=wav(samples))[1])["stdin"][1], expected)


def test_latency_changes_lines_and_not_codes(run, takes):
    whole = run("encode", takes / "a.wav")[1]
    short = run("encode", takes / "a.wav", "--latency", 0.05)[1]
    np.testing.assert_array_equal(items_of(short)["a"][1], items_of(whole)["a"][1])
    assert short.count(b'{"c":') > 2 * whole.count(b'{"c":')


def test_channels_are_mixed_or_doubled(run, home):
    stereo = sound(0.5, channels=2)
    mixed = stereo.mean(axis=1, keepdims=True)
    mono_of = {
        name: items_of(run("encode", stdin=wav(samples, subtype="FLOAT"))[1])["stdin"][1]
        for name, samples in (("stereo", stereo), ("mixed", mixed), ("six", np.tile(stereo, 3)))
    }
    np.testing.assert_array_equal(mono_of["stereo"], mono_of["mixed"])
    assert (mono_of["six"] == mono_of["mixed"]).mean() > 0.95  # sums of six round otherwise
    doubled = np.repeat(mixed, 2, axis=1)
    of_stereo = [
        items_of(run("encode", "--model", "stereo", stdin=wav(samples, 48_000, subtype="FLOAT"))[1])["stdin"][1]
        for samples in (mixed, doubled)
    ]
    np.testing.assert_array_equal(*of_stereo)


@pytest.mark.parametrize("encoding", ["s16le", "s24be", "f32le"])
def test_raw_sound_gives_the_codes_of_a_file(run, encoding):
    from musictool.audio.raw import RawFormat

    samples = sound(1.0, 16_000, 2)
    subtype = {"s16le": "PCM_16", "s24be": "PCM_24", "f32le": "FLOAT"}[encoding]
    layout = ("--raw", "--rate", 16_000, "--channels", 2, "--sample-format", encoding)
    file = wav(samples, 16_000, subtype=subtype)
    data = RawFormat(16_000, 2, encoding).encode(soundfile.read(io.BytesIO(file), dtype="float32")[0])
    raw, expected = run("encode", *layout, "-", stdin=data)[1], run("encode", stdin=file)[1]
    np.testing.assert_array_equal(items_of(raw)["stdin"][1], items_of(expected)["stdin"][1])
    assert items_of(raw)["stdin"][0].head.meta["source"] == {"rate_hz": 16_000, "channels": 2}


def test_raw_sound_is_the_codecs_own_unless_said_and_a_wav_header_is_believed(run):
    samples = sound(0.5)
    expected = items_of(run("encode", stdin=wav(samples))[1])["stdin"][1]
    for data in (np.rint(samples * 32768).astype("<i2").tobytes(), wav(samples)):
        status, stream, _ = run("encode", "--raw", stdin=data)
        assert status == 0
        assert (items_of(stream)["stdin"][1] == expected).mean() > 0.99


def test_the_same_sound_gives_the_same_bytes_in_any_number_of_processes(run, takes):
    streams = [run("encode", takes, "--jobs", jobs)[1] for jobs in (1, 1, 3)]
    assert streams[0] == streams[1]
    alone, beside = items_of(streams[0]), items_of(streams[2])
    assert list(alone) == list(beside) == ["a", "b", "inner/c"]
    for name, (item, codes) in alone.items():
        np.testing.assert_array_equal(beside[name][1], codes)
        assert beside[name][0].head == item.head
        assert beside[name][0].closing == item.closing


# ------------------------------------------------------------------------------------------------------------ outputs


def test_a_compressed_file_and_standard_output_hold_the_same(run, takes, tmp_path):
    import zstandard

    assert run("encode", takes, "-o", tmp_path / "x.mtk.zst")[0] == 0
    data = zstandard.ZstdDecompressor().decompressobj().decompress((tmp_path / "x.mtk.zst").read_bytes())
    assert data == run("encode", takes)[1]


def test_each_item_gets_a_stream_and_a_batch_goes_on_where_it_stopped(run, takes, tmp_path):
    folder = tmp_path / "out"
    assert run("encode", takes, "-o", f"{folder}/")[0] == 0
    whole = items_of(run("encode", takes)[1])
    for name, (_, codes) in whole.items():
        np.testing.assert_array_equal(items_of((folder / f"{name}.mtk").read_bytes())[name][1], codes)
    assert run("encode", takes, "-o", f"{folder}/")[0] == 2  # they exist
    (folder / "b.mtk").unlink()
    before = (folder / "a.mtk").stat().st_mtime_ns
    assert run("encode", takes, "-o", f"{folder}/", "--skip-existing", "--jobs", 2)[0] == 0
    assert (folder / "b.mtk").exists()
    assert (folder / "a.mtk").stat().st_mtime_ns == before


def test_shards_share_the_files(run, takes):
    assert [list(items_of(run("encode", takes, "--shard", f"{k}/2")[1])) for k in (1, 2)] == [["a", "inner/c"], ["b"]]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_corpus_has_a_row_for_each_sound(run, takes, tmp_path, jobs):
    import pyarrow.parquet

    (takes / "bad.wav").write_bytes(b"no sound")
    assert run("encode", takes, "--model", "stereo", "-o", tmp_path / "x.parquet", "--jobs", jobs)[0] == 1
    rows = pyarrow.parquet.read_table(tmp_path / "x.parquet").to_pylist()
    (takes / "bad.wav").unlink()
    expected = items_of(run("encode", takes, "--model", "stereo")[1])
    assert [row["item"] for row in rows] == ["a", "b", "inner/c"]
    for row in rows:
        item, codes = expected[row["item"]]
        frames = np.array(row["ids"]).reshape(-1, row["codebooks"])
        np.testing.assert_array_equal(frames.T, codes)
        assert (row["n"], row["sha"], row["source_sha"]) == (
            item.closing.count,
            item.closing.sha,
            item.closing.source_sha,
        )
        assert (row["samples"], row["source_samples"]) == (item.closing.samples, item.closing.source_samples)
        assert len(row["scales"]) == -(-item.closing.samples // 47_520)
        assert (row["kind"], row["vocab"], row["vocab_sha"]) == ("codes", "stereo", item.head.vocab_sha)
        assert json.loads(row["meta"])["codebooks"] == 4
    result = run("validate", tmp_path / "x.parquet", "--json")
    assert result[0] == 0, result


def test_ecdc_files_are_those_of_the_codecs_that_have_them(tmp_path, takes):
    install_codec(tmp_path, "encodec-24khz", load_preset("encodec-24khz"))
    environ = {"MTK_HOME": str(tmp_path)}

    def run(*arguments: object, stdin: bytes = b"") -> tuple[int, bytes, str]:
        environment = Environment(io.BytesIO(stdin), io.BytesIO(), io.StringIO(), environ)
        status = main([str(argument) for argument in arguments], environment)
        return status, environment.stdout.getvalue(), environment.stderr.getvalue()

    options = ("--model", "encodec-24khz", "--bandwidth", 3)
    assert run("encode", takes, *options, "-o", f"{tmp_path}/{{stem}}.ecdc") == (0, b"", "")
    assert sorted(path.name for path in tmp_path.glob("*.ecdc")) == ["a.ecdc", "b.ecdc", "c.ecdc"]
    stream = run("encode", takes / "b.flac", *options)[1]
    assert run("decode", "-o", tmp_path / "stream.wav", "--rate", 24_000, stdin=stream)[0] == 0
    for source in ((), (tmp_path / "b.ecdc",)):
        data = (tmp_path / "b.ecdc").read_bytes() if not source else b""
        assert run("decode", *source, "-o", tmp_path / "ecdc.wav", "--force", stdin=data) == (0, b"", "")
        assert (tmp_path / "ecdc.wav").read_bytes() == (tmp_path / "stream.wav").read_bytes()
    status, _, errors = run("decode", "-o", tmp_path / "cut.wav", stdin=(tmp_path / "b.ecdc").read_bytes()[:-9])
    assert status == 3
    assert errors.startswith("mtk: error: ")
    assert not (tmp_path / "cut.wav").exists()


def test_ecdc_files_of_another_codec_are_refused_before_any_work(run, takes, tmp_path):
    status, _, errors = run("encode", takes, "-o", tmp_path / "x.ecdc")
    assert status == 2
    assert "cannot hold" in errors
    assert not (tmp_path / "x.ecdc").exists()


# --------------------------------------------------------------------------------------------------- what goes wrong

BAD = {
    "text": b"this is no sound at all, whatever its name says\n" * 20,
    "empty": b"",
    "nan": wav(np.where(np.arange(50_000) == 40_000, np.nan, 0.1).astype(np.float32), subtype="FLOAT"),
    "no-frames": wav(np.zeros(0, np.float32)),
}
GOOD = {
    "half a millisecond": wav(sound(0.0005)),
    "one sample": wav(sound(1 / RATE)),
    "192 kHz": wav(sound(0.2, 192_000), 192_000),
    "8 channels": wav(sound(0.2, channels=8)),
    "silence": wav(np.zeros(RATE, np.float32)),
    "far too loud": wav(100 * sound(0.2), subtype="FLOAT"),
}


@pytest.mark.parametrize("model", ["codec-24khz", "stereo"])
@pytest.mark.parametrize("name", GOOD)
def test_unusual_sound_is_encoded(run, name, model):
    status, stream, errors = run("encode", "--model", model, stdin=GOOD[name])
    assert (status, errors) == (0, "")
    item, codes = items_of(stream)["stdin"]
    assert codes.shape[1] >= 1
    assert item.closing.source_samples == soundfile.info(io.BytesIO(GOOD[name])).frames


@pytest.mark.parametrize("name", BAD)
def test_bad_sound_alone_ends_with_one_line_and_status_3(run, tmp_path, name):
    path = tmp_path / f"{name}.wav"
    path.write_bytes(BAD[name])
    status, stream, errors = run("encode", path)
    assert status == 3
    assert errors.startswith("mtk: error: ")
    assert errors.count("mtk: ") == 1
    assert str(path) in errors
    assert stream.count(b'"fail":1') == 1
    assert run("encode", path, "-o", tmp_path / "x.mtk")[0] == 3
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("jobs", [1, 2])
def test_bad_sound_among_good_fails_alone_and_travels_on(run, takes, tmp_path, jobs):
    for name, data in BAD.items():
        (takes / f"{name}.wav").write_bytes(data)
    status, stream, errors = run("encode", takes, takes / "nowhere.wav", "--jobs", jobs)
    assert status == 1
    assert all(f"failed: {name}: " in errors for name in (*BAD, "nowhere"))
    lines = [json.loads(line) for line in stream.splitlines()]
    named = [line["item"] for line in lines if "item" in line]
    assert named == ["a", "b", "empty", "inner/c", "nan", "no-frames", "text", "nowhere"]
    assert (sum("fail" in line for line in lines), sum("end" in line for line in lines)) == (5, 3)
    status, _, errors = run("decode", "-o", f"{tmp_path}/out/", stdin=stream)
    assert status == 1
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.wav")) == ["a.wav", "b.wav", "c.wav"]
    assert all(f"failed: {name}: " in errors for name in (*BAD, "nowhere"))


def test_a_truncated_file_is_encoded_with_a_warning(run, tmp_path):
    path = tmp_path / "cut.wav"
    path.write_bytes(wav(sound(2))[:50_044])
    status, stream, errors = run("encode", path)
    assert status == 0
    assert "warning: the sound breaks off" in errors
    assert items_of(stream)["cut"][0].closing.source_samples == 25_000


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--model", "codec-25khz"), 4, "no model named 'codec-25khz'"),
        (("--model", "no/such/folder"), 3, "no such file or folder"),
        (("--bandwidth", "5"), 2, "no such bandwidth: 5 kbps"),
        (("--bandwidth", "99"), 2, "no such bandwidth"),
        (("--bandwidth", "nan"), 2, "bandwidth"),
        (("--codebooks", "9"), 2, "1 to 8 codebooks, not 9"),
        (("--codebooks", "0"), 2, "1 to 8 codebooks, not 0"),
        (("--codebooks", "2", "--bandwidth", "0.9"), 2, "contradict"),
        (("--latency", "0"), 2, "no such latency"),
        (("--latency", "nan"), 2, "no such latency"),
        (("--rate", "44100"), 2, "how raw sound is"),
        (("--raw", "--channels", "0"), 2, "channels"),
        (("--raw", "--sample-format", "s12le"), 2, "sample-format"),
        (("--device", "cuda:99"), 5, "no such device"),
        (("--device", "cuda", "--jobs", "2"), 2, "--jobs"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run, takes, arguments, status, message):
    got, stream, errors = run("encode", takes / "a.wav", *arguments)
    assert got == status, errors
    assert b'"c":' not in stream
    assert message in errors.splitlines()[0]
    assert errors.count("\n") <= 2


def test_a_model_that_is_no_codec_is_refused(tmp_path, takes):
    from tests.small_models import install_small_note_tagger

    install_small_note_tagger(tmp_path)
    environment = Environment(io.BytesIO(), io.BytesIO(), io.StringIO(), {"MTK_HOME": str(tmp_path)})
    assert main(["encode", str(takes / "a.wav"), "--model", "note-tagger"], environment) == 2
    assert "no codec" in environment.stderr.getvalue().splitlines()[0]


def test_machines_are_told_how_far_the_run_is(run, takes):
    for jobs in (1, 2):
        _, _, errors = run("encode", takes, "--log", "json", "--jobs", jobs)
        events = {record["event"]: record for record in map(json.loads, errors.splitlines())}
        assert events["end"]["audio_seconds"] == pytest.approx(3.8, abs=0.05)


# ------------------------------------------------------------------------------------------------- in real processes


def start(home: Path, *arguments: object, **pipes) -> subprocess.Popen:
    command = [sys.executable, "-m", "musictool", *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, "MTK_HOME": str(home)}, stdout=subprocess.PIPE, **pipes)


def shell(home: Path, command: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    mtk = f'mtk() {{ {sys.executable} -m musictool "$@"; }}'
    environ = {**os.environ, "MTK_HOME": str(home)}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{mtk}; {command}"], cwd=cwd, env=environ, capture_output=True, timeout=120
    )


def test_sound_through_both_stages_keeps_its_length(home, tmp_path):
    (tmp_path / "x.ogg").write_bytes(wav(sound(1.7, 44_100, 2), 44_100, format="OGG", subtype="VORBIS"))
    done = shell(home, "mtk encode x.ogg | mtk decode -o y.wav", tmp_path)
    assert done.returncode == 0, done.stderr
    source, decoded = (soundfile.info(tmp_path / name) for name in ("x.ogg", "y.wav"))
    assert (decoded.frames, decoded.samplerate) == (source.frames, source.samplerate)


def test_codes_leave_and_sound_comes_back_while_sound_comes_in(home, tmp_path):
    """Live: half a second after it has been said, it is heard, though the microphone stays open."""
    layout = ("--raw", "--sample-format", "s16le")
    with (
        start(home, "encode", *layout, "--latency", 0.1, "-", stdin=subprocess.PIPE) as encoder,
        start(home, "decode", *layout, "--latency", 0.1, "-", stdin=encoder.stdout) as decoder,
    ):
        data = np.rint(sound(3) * 32_768).astype("<i2").tobytes()
        second = 2 * RATE
        encoder.stdin.write(data[: second // 2])
        encoder.stdin.flush()
        early = decoder.stdout.read(second // 4)  # blocks for ever if it waits for the rest
        assert len(early) == second // 4
        encoder.stdin.write(data[second // 2 :])
        encoder.stdin.close()
        encoder.stdout.close()
        assert len(early) + len(decoder.stdout.read()) == len(data)
        assert (encoder.wait(60), decoder.wait(60)) == (0, 0)


def test_a_reader_that_leaves_ends_the_run_quietly(home, takes):
    with start(home, "encode", takes, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == b""


def test_a_signal_ends_the_run_and_leaves_no_file(home, tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(home, "encode", "-", "-o", tmp_path / "out.mtk", **pipes) as process:
        process.stdin.write(wav(sound(2)))
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)  # until the temporary file is there, and with it the handlers of signals
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, process.stderr.read()
        process.stdin.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_the_run_and_leaves_no_file(home, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.wav").write_bytes(wav(sound(20)))
    done = shell(home, "ulimit -f 16; mtk encode a.wav b.wav -o out/", tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith(b"mtk: error: ")
    assert done.stderr.count(b"mtk: ") == 1
    assert list((tmp_path / "out").iterdir()) == []


def peak_memory_of_live(home: Path, seconds: int) -> int:
    """The most memory, in bytes, that encoding so much raw sound from a pipe takes."""
    with start(home, "encode", "--raw", "-", stdin=subprocess.PIPE) as process:
        block = np.rint(sound(10) * 32_768).astype("<i2").tobytes()

        def feed() -> None:
            for _ in range(seconds // 10):
                process.stdin.write(block)
            process.stdin.close()

        feeder = threading.Thread(target=feed)
        feeder.start()
        peak = 0
        for _ in process.stdout:
            text = Path(f"/proc/{process.pid}/status").read_text()
            peak = max([peak, *(int(kib) * 1024 for kib in re.findall(r"VmHWM:\s+(\d+) kB", text))])
        feeder.join()
        assert process.wait(60) == 0
    return peak


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("seconds", [200, pytest.param(3600, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_sound(home, seconds):
    short, long = peak_memory_of_live(home, 20), peak_memory_of_live(home, seconds)
    assert long < min(1.1 * short, 1 << 30), f"{short >> 20} MiB for 20 s, {long >> 20} MiB for {seconds} s"
