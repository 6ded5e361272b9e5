"""`mtk transcribe --model mt3` as a whole command: a small random model; the published one where its weights are here.

What ships is tested in test_transcribe_as_shipped.py.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictool.checkpoints.store import Store
from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.inference.model_files import import_model
from musictool.stream.reader import StreamReader
from musictool.symbolic.midi import read_midi
from musictool.symbolic.schemes import lookup_events
from musictool.symbolic.schemes.mt3 import END, VOCABULARY
from tests.small_models import install_small_mt3

SHARED = os.environ.get("MTK_TEST_SHARED")
RATE = 16_000


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """A store that holds the small model as `mt3`."""
    home = tmp_path_factory.mktemp("home")
    install_small_mt3(home)
    return home


@pytest.fixture
def run(home) -> Callable[..., tuple[int, bytes, str]]:
    """Run `mtk ARGUMENT…`, with MT3 where nothing else is said: exit status, standard output, standard error."""

    def run(*arguments: object, stdin: bytes = b"") -> tuple[int, bytes, str]:
        arguments = with_model(arguments)
        environment = Environment(io.BytesIO(stdin), io.BytesIO(), io.StringIO(), {"MTK_HOME": str(home)})
        status = main([str(argument) for argument in arguments], environment)
        return status, environment.stdout.getvalue(), environment.stderr.getvalue()

    return run


def with_model(arguments: Sequence[object]) -> tuple[object, ...]:
    """The arguments of `mtk transcribe` with a model among them; those of other verbs as they are."""
    is_missing = arguments[0] == "transcribe" and "--model" not in arguments
    return (*arguments, "--model", "mt3") if is_missing else tuple(arguments)


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    """Notes of a plucked string at random times, float32 [n]."""
    generator = np.random.default_rng(seed)
    times = np.arange(round(seconds * RATE)) / RATE
    samples = np.zeros(len(times), np.float32)
    for onset in np.arange(0, seconds, 0.3):
        since = times - onset
        wave = np.sin(2 * np.pi * generator.uniform(100, 900) * since) * np.exp(-3 * since)
        samples += np.where(since >= 0, wave, 0).astype(np.float32)
    return samples / max(1e-9, np.abs(samples).max())


def wav(samples: np.ndarray, rate: int = RATE, **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=options.pop("format", "WAV"), **options)
    return file.getvalue()


@pytest.fixture
def takes(tmp_path) -> Path:
    """Three takes of different lengths."""
    folder = tmp_path / "takes"
    folder.mkdir()
    for name, seconds in (("a", 5.0), ("b", 2.0), ("c", 9.3)):
        (folder / f"{name}.wav").write_bytes(wav(sound(seconds, seed=len(name) + round(seconds)), subtype="FLOAT"))
    return folder


def items(stream: bytes) -> dict[str, tuple[dict, np.ndarray]]:
    """Heads' meta and ids of a stream's items, by name; the stream is checked as it is read."""
    found = {}
    for item in StreamReader(io.BytesIO(stream), lookup_events, "test"):
        found[item.head.item] = (item.head.to_json(), np.concatenate([np.zeros(0, np.int32), *item.chunks()]))
    return found


def test_files_that_share_batches_give_what_each_gives_alone(run, takes):
    status, together, _ = run("transcribe", takes)
    assert status == 0
    alone = {}
    for name in "abc":
        alone.update(items(run("transcribe", takes / f"{name}.wav", "--batch", 1)[1]))
    assert {name: ids.tolist() for name, (_, ids) in items(together).items()} == {
        name: ids.tolist() for name, (_, ids) in alone.items()
    }


def test_each_segment_ends_and_the_last_is_of_what_is_left(run, takes):
    found = items(run("transcribe", takes)[1])
    ends = {name: int((ids == END).sum()) for name, (_, ids) in found.items()}
    assert ends == {"a": 3, "b": 1, "c": 5}
    exact = wav(np.zeros(2 * 32_768, np.float32))  # ends on a border: one more segment, of one frame
    assert (items(run("transcribe", stdin=exact)[1])["stdin"][1] == END).sum() == 3


def test_the_same_sound_gives_the_same_bytes(run, takes):
    assert run("transcribe", takes)[1] == run("transcribe", takes)[1]
    with_options = ("transcribe", takes, "--precision", "bf16", "--steady", "--scheme", "tatum")
    assert run(*with_options)[1] == run(*with_options)[1]


def test_the_head_says_what_was_done(run, takes):
    head, _ = items(run("transcribe", takes / "a.wav", "--instruments", "piano,drums")[1])["a"]
    assert head["meta"]["source"] == {"rate_hz": RATE, "channels": 1}
    assert head["meta"]["duration_seconds"] == 5.0
    (stage,) = head["made"]
    assert (stage["command"], stage["model"], stage["precision"]) == ("transcribe", "mt3", "fp32")
    assert stage["instruments"] == "piano,drums"
    assert len(stage["model_sha256"]) == 64


@pytest.mark.parametrize("options", [(), ("--steady",), ("--scheme", "tatum"), ("--scheme", "remi", "--steady")])
def test_streams_decode_to_midi(run, takes, tmp_path, options):
    status, stream, _ = run("transcribe", takes, *options)
    assert status == 0
    assert run("decode", "-o", f"{tmp_path}/out/", stdin=stream)[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mid", "b.mid", "c.mid"]
    for path in (tmp_path / "out").iterdir():
        read_midi(path)


def test_pinned_instruments_are_the_only_ones(run, takes):
    names = {}
    for choice in (None, "piano,33", "drums"):
        pinned = ("--instruments", choice) if choice else ()
        _, ids = items(run("transcribe", takes / "c.wav", *pinned)[1])["c"]
        names[choice] = {name for name in VOCABULARY.names(ids) if name.startswith(("Program", "Drum"))}
    allowed = {f"Program_{program}" for program in (*range(8), 33)}
    assert names["piano,33"] <= allowed
    assert not names[None] <= allowed
    assert all(name.startswith("Drum") for name in names["drums"])


def test_steady_reads_twice_and_off_is_the_model_itself(run, takes):
    plain, again = (
        items(run("transcribe", takes / "a.wav", *options)[1])["a"][1] for options in ((), ("--no-steady",))
    )
    assert plain.tolist() == again.tolist()
    head, steadied = items(run("transcribe", takes / "a.wav", "--steady")[1])["a"]
    assert head["made"][0]["steady"] is True
    assert steadied.tolist() != plain.tolist()


def test_tokens_by_name_are_the_same_tokens(run, takes):
    by_name = run("transcribe", takes / "b.wav", "--names")[1]
    assert b'"w":[' in by_name
    assert items(by_name)["b"][1].tolist() == items(run("transcribe", takes / "b.wav")[1])["b"][1].tolist()


BAD = {
    "text": b"this is no sound at all, whatever its name says\n" * 20,
    "empty": b"",
    "nan": wav(np.where(np.arange(20_000) == 9_000, np.nan, 0.1).astype(np.float32), subtype="FLOAT"),
    "no-frames": wav(np.zeros(0, np.float32)),
}
GOOD = {
    "8khz": wav(sound(3)[::2], 8_000),
    "192khz": wav(np.repeat(sound(1), 12), 192_000),
    "24bit": wav(sound(3), subtype="PCM_24"),
    "8channels": wav(np.stack([sound(3, seed) for seed in range(8)], axis=1)),
    "20ms": wav(sound(0.02)),
    "loud": wav(100 * sound(1), subtype="FLOAT"),
    "silence": wav(np.zeros(RATE, np.float32)),
}


@pytest.mark.parametrize("name", GOOD)
def test_unusual_sound_is_transcribed(run, name):
    status, stream, errors = run("transcribe", stdin=GOOD[name])
    assert (status, errors) == (0, "")
    assert END in items(stream)["stdin"][1]


@pytest.mark.parametrize("name", BAD)
def test_bad_sound_alone_ends_with_one_line_and_status_3(run, tmp_path, name):
    path = tmp_path / f"{name}.wav"
    path.write_bytes(BAD[name])
    status, stream, errors = run("transcribe", path)
    assert status == 3
    assert errors.startswith("mtk: error: ")
    assert errors.count("mtk: ") == 1
    assert str(path) in errors
    assert stream.count(b'"fail":1') == 1


def test_bad_sound_among_good_fails_alone(run, takes):
    for name, data in BAD.items():
        (takes / f"{name}.wav").write_bytes(data)
    status, stream, errors = run("transcribe", takes, takes / "nowhere.wav")
    assert status == 1
    lines = [json.loads(line) for line in stream.splitlines()]
    named = [line["item"] for line in lines if "item" in line]
    assert named == ["a", "b", "c", "empty", "nan", "no-frames", "text", "nowhere"]
    assert sum("fail" in line for line in lines) == 5
    assert sum("end" in line for line in lines) == 3
    assert all(f"failed: {name}: " in errors for name in (*BAD, "nowhere"))


def test_a_truncated_mp3_gives_what_is_there(run, tmp_path):
    whole = wav(sound(8), format="MP3")
    path = tmp_path / "cut.mp3"
    path.write_bytes(whole[: len(whole) // 2])
    status, stream, _ = run("transcribe", path)
    assert status == 0
    assert 1 <= (items(stream)["cut"][1] == END).sum() < 4


def test_a_truncated_wav_is_transcribed_with_a_warning(run, tmp_path):
    path = tmp_path / "cut.wav"
    path.write_bytes(wav(sound(8))[:100_000])
    status, stream, errors = run("transcribe", path)
    assert status == 0
    assert "warning: the sound breaks off" in errors
    assert (items(stream)["cut"][1] == END).sum() == 2


def test_each_file_gets_a_stream_of_its_own_and_a_batch_goes_on_where_it_stopped(run, takes, tmp_path):
    folder = tmp_path / "out"
    assert run("transcribe", takes, "-o", f"{folder}/")[0] == 0
    whole = items(run("transcribe", takes)[1])
    for name in "abc":
        assert items((folder / f"{name}.mtk").read_bytes())[name][1].tolist() == whole[name][1].tolist()
    assert run("transcribe", takes, "-o", f"{folder}/")[0] == 2  # they exist
    (folder / "b.mtk").unlink()
    before = (folder / "a.mtk").stat().st_mtime_ns
    assert run("transcribe", takes, "-o", f"{folder}/", "--skip-existing")[0] == 0
    assert (folder / "b.mtk").exists()
    assert (folder / "a.mtk").stat().st_mtime_ns == before


def test_a_failed_item_leaves_no_file(run, takes, tmp_path):
    (takes / "bad.wav").write_bytes(BAD["text"])
    assert run("transcribe", takes, "-o", f"{tmp_path}/out/")[0] == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mtk", "b.mtk", "c.mtk"]


def test_shards_share_the_files(run, takes):
    found = [items(run("transcribe", takes, "--shard", f"{k}/2")[1]) for k in (1, 2)]
    assert [list(part) for part in found] == [["a", "c"], ["b"]]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--model", "mt4"), 4, "no model named 'mt4'"),
        (("--instruments", "kazoo"), 2, "no such instrument"),
        (("--scheme", "mt"), 2, "no such scheme"),
        (("--device", "tpu"), 2, "no such device"),
        (("--device", "cuda:99"), 5, "no such device"),
        (("--batch", "0"), 2, "batch"),
        (("--precision", "fp8"), 2, "precision"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run, takes, arguments, status, message):
    got, stream, errors = run("transcribe", takes, *arguments)
    assert (got, stream) == (status, b"")
    assert message in errors.splitlines()[0]


def test_a_missing_model_is_offered(tmp_path, takes):
    environment = Environment(io.BytesIO(), io.BytesIO(), io.StringIO(), {"MTK_HOME": str(tmp_path)})
    assert main(["transcribe", str(takes), "--model", "mt3"], environment) == 4
    assert "hint: mtk models pull mt3" in environment.stderr.getvalue()


def test_machines_are_told_how_far_the_run_is(run, takes):
    _, _, errors = run("transcribe", takes, "--log", "json")
    events = {record["event"]: record for record in map(json.loads, errors.splitlines())}
    assert events["end"]["audio_seconds"] == pytest.approx(16.3, abs=0.1)
    assert events["end"]["real_time_factor"] > 0


# --------------------------------------------------------------------------------------------------- real processes


def start(home: Path, *arguments: object, **pipes) -> subprocess.Popen:
    command = [sys.executable, "-m", "musictool", *map(str, with_model(arguments))]
    return subprocess.Popen(command, env={**os.environ, "MTK_HOME": str(home)}, stdout=subprocess.PIPE, **pipes)


def test_tokens_come_before_the_sound_has_ended(home):
    data = wav(sound(20))
    with start(home, "transcribe", "-", "--batch", 1, stdin=subprocess.PIPE) as process:
        process.stdin.write(data[: len(data) // 2])
        process.stdin.flush()
        lines = [process.stdout.readline() for _ in range(3)]  # blocks for ever if they wait for the rest
        assert lines[0].startswith(b'{"mtk":1')
        assert lines[2].startswith(b'{"t":')
        rest, _ = process.communicate(data[len(data) // 2 :], timeout=60)
        assert process.returncode == 0
    _, ids = items(b"".join(lines) + rest)["stdin"]
    assert (ids == END).sum() == 10


def test_a_reader_that_leaves_ends_the_run_quietly(home, takes):
    with start(home, "transcribe", takes, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_and_leaves_no_file(home, tmp_path, number, status):
    target = tmp_path / "out.mtk"
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(home, "transcribe", "-", "-o", target, "--debug", **pipes) as process:
        process.stdin.write(wav(sound(2)))
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not any(path.suffix != ".mtk" for path in tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)  # until the temporary file is there, and with it the handlers of signals
        process.send_signal(number)
        assert process.wait(60) == status, process.stderr.read()
        process.stdin.close()
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------ the published model


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Path:
    if not SHARED:
        pytest.skip("needs the published weights")
    home = tmp_path_factory.mktemp("published")
    import_model(Path(SHARED) / "models/mt3-t5x", "mt3", store=Store(home))
    return home


@pytest.mark.parametrize("name", ["MAPS_MUS-schumm-1_ENSTDkAm"])
def test_the_published_model_gives_the_reference_tokens(published, tmp_path, name):
    """The last ten seconds of a recording, a short segment among them, as greedy decoding of the published code."""
    folder = Path(SHARED or "")
    samples, rate = soundfile.read(folder / "data/recordings/maps-dev" / f"{name}.flac", dtype="float32")
    soundfile.write(tmp_path / "take.flac", samples[25 * 32_768 :], rate)
    expected = json.loads((folder / "references/mt3/tokens_greedy_fp32.json").read_text())[name][25:]
    with start(published, "transcribe", tmp_path / "take.flac") as process:
        stream, _ = process.communicate(timeout=300)
    ids = items(stream)["take"][1]
    segments = np.split(ids, np.flatnonzero(ids == END) + 1)
    assert [segment.tolist() for segment in segments[:-1]] == expected
