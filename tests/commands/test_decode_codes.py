"""`mtk decode` of codes as a whole command, with small random codecs, and the pipe `mtk encode | mtk decode`."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictool.cli.environment import Environment
from musictool.cli.main import main
from tests.commands.codes import RATE, items_of, rewritten, sound, wav
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

    def run(*arguments: object, stdin: bytes = b"", home: Path = home) -> tuple[int, bytes, str]:
        environment = Environment(io.BytesIO(stdin), io.BytesIO(), io.StringIO(), {"MTK_HOME": str(home)})
        status = main([str(argument) for argument in arguments], environment)
        return status, environment.stdout.getvalue(), environment.stderr.getvalue()

    return run


@pytest.fixture
def stream(run) -> bytes:
    """Codes of a second and a half."""
    return run("encode", stdin=wav(sound(1.5)))[1]


def decoded(run: Run, stream: bytes, *options: object) -> tuple[np.ndarray, int]:
    """Sound of a stream, float32 [n, C], and its rate."""
    status, data, errors = run("decode", "--format", "wav", "--bits", 32, *options, stdin=stream)
    assert (status, errors) == (0, "")
    return soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)


@pytest.mark.parametrize("model", ["codec-24khz", "stereo"])
@pytest.mark.parametrize(
    ("rate_hz", "frames", "channels"),
    [(24_000, 1, 1), (24_000, 12, 1), (44_100, 22, 2), (44_100, 100_003, 1), (16_000, 24_001, 2), (192_000, 7, 1),
     (48_000, 47_520 + 100, 2), (48_000, 95_040, 2)],
)  # fmt: skip
def test_sound_comes_back_as_long_and_as_fast_as_it_was(run, model, rate_hz, frames, channels):
    samples = sound(frames / rate_hz, rate_hz, channels)
    assert len(samples) == frames
    back, rate = decoded(run, run("encode", "--model", model, stdin=wav(samples, rate_hz))[1])
    assert (len(back), rate) == (frames, rate_hz)
    assert back.shape[1] == (2 if model == "stereo" else 1)


def test_sound_is_that_of_the_model_itself(run, home, stream):
    import torch

    from musictool.checkpoints.store import Store
    from musictool.inference.model_files import load_model

    codes = items_of(stream)["stdin"][1]
    model = load_model("codec-24khz", store=Store(home)).model
    with torch.inference_mode():
        expected = model.decode(torch.from_numpy(codes).long()[None])[0].numpy()
    np.testing.assert_allclose(decoded(run, stream)[0].T, expected[:, :36_000], atol=1e-5)


def test_fewer_codebooks_are_those_of_a_coarser_stream(run, stream):
    coarse = run("encode", "--codebooks", 2, stdin=wav(sound(1.5)))[1]
    few, all_of_few = decoded(run, stream, "--codebooks", 2)[0], decoded(run, coarse)[0]
    np.testing.assert_array_equal(few, all_of_few)
    assert np.abs(few - decoded(run, stream)[0]).max() > 1e-3


@pytest.mark.parametrize("rate_hz", [8000, 24_000, 44_100])
def test_a_rate_is_kept_whatever_the_source_had(run, rate_hz):
    stream = run("encode", stdin=wav(sound(1.0, 16_000), 16_000))[1]
    back, rate = decoded(run, stream, "--rate", rate_hz)
    assert (rate, len(back)) == (rate_hz, rate_hz)


def test_codes_that_know_no_source_are_sound_at_the_codecs_rate(run, stream):
    head = items_of(stream)["stdin"][0].head
    bare = rewritten(stream, meta={}, source_samples=None)
    assert decoded(run, bare)[1] == 24_000
    np.testing.assert_array_equal(decoded(run, bare)[0], decoded(run, stream)[0])
    whole_frames = rewritten(stream, meta={"source": {}}, samples=None, source_samples=None)
    assert len(decoded(run, whole_frames)[0]) == -(-36_000 // 320) * 320
    assert head.meta["source"] == {"rate_hz": 24_000, "channels": 1}


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("model", ["codec-24khz", "stereo"])
def test_every_format_keeps_the_length(run, tmp_path, suffix, model):
    stream = run("encode", "--model", model, stdin=wav(sound(0.7, 44_100), 44_100))[1]
    path = tmp_path / f"x.{suffix}"
    assert run("decode", "-o", path, stdin=stream)[0] == 0
    back, rate = soundfile.read(path, always_2d=True)
    assert back.shape == (30_870, 2 if model == "stereo" else 1)
    assert rate == 44_100
    assert np.abs(back).max() > 0.01


@pytest.mark.parametrize(
    ("options", "subtype"), [((), "PCM_16"), (("--bits", 24), "PCM_24"), (("--bits", 32), "FLOAT")]
)
def test_bits_are_those_that_were_asked_for(run, stream, tmp_path, options, subtype):
    assert run("decode", "-o", tmp_path / "x.wav", *options, stdin=stream)[0] == 0
    assert soundfile.info(tmp_path / "x.wav").subtype == subtype


def test_raw_sound_is_that_of_a_file(run, stream):
    exact = decoded(run, stream)[0]
    raw = run("decode", "--raw", "--sample-format", "f32le", stdin=stream)[1]
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4")[:, None], exact)
    raw = run("decode", "--raw", "--latency", 0.1, stdin=stream)[1]
    np.testing.assert_allclose(np.frombuffer(raw, "<i2")[:, None] / 32_768, np.clip(exact, -1, 1), atol=2e-5)


def test_notes_are_played_as_raw_sound_too(run, waltz):
    notes = run("tokenize", waltz)[1]
    raw = run("decode", "--raw", "--rate", 8000, "--synthesizer", "builtin", stdin=notes)[1]
    file = run("decode", "--format", "wav", "--bits", 32, "--rate", 8000, "--synthesizer", "builtin", stdin=notes)[1]
    expected, _ = soundfile.read(io.BytesIO(file))
    np.testing.assert_allclose(np.frombuffer(raw, "<i2").reshape(-1, 2) / 32_768, expected, atol=2e-5)


def test_notes_and_codes_in_one_stream_become_what_they_are(run, stream, waltz, tmp_path):
    mixed = run("tokenize", waltz)[1] + stream
    assert run("decode", "-o", f"{tmp_path}/out/", stdin=mixed)[::2] == (0, "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["stdin.wav", "waltz.mid"]
    sounds = ("-o", f"{tmp_path}/{{stem}}.flac", "--synthesizer", "builtin", "--jobs", 2)
    assert run("decode", *sounds, stdin=mixed)[::2] == (0, "")
    assert soundfile.info(tmp_path / "stdin.flac").channels == 1
    assert soundfile.info(tmp_path / "waltz.flac").channels == 2
    status, _, errors = run("decode", "-o", f"{tmp_path}/{{stem}}.midi", stdin=mixed)
    assert status == 1
    assert "failed: stdin: codes are sound" in errors
    assert (tmp_path / "waltz.midi").exists()


def test_jobs_write_the_same_files(run, tmp_path):
    for seed in range(3):
        (tmp_path / f"{seed}.wav").write_bytes(wav(sound(0.5 + seed, seed=seed)))
    stream = run("encode", *sorted(tmp_path.glob("*.wav")))[1]
    for jobs in (1, 3):
        assert run("decode", "-o", f"{tmp_path}/{jobs}/", "--bits", 32, "--jobs", jobs, stdin=stream)[0] == 0
    for seed in range(3):
        one, other = (soundfile.read(tmp_path / f"{jobs}" / f"{seed}.wav")[0] for jobs in (1, 3))
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_what_is_there_is_left_and_what_failed_is_named_all_the_same(run, tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(sound(0.3)))
    (tmp_path / "b.wav").write_bytes(b"nothing")
    stream = run("encode", tmp_path / "a.wav", tmp_path / "b.wav")[1]
    (tmp_path / "out").mkdir()
    for name in "ab":
        (tmp_path / "out" / f"{name}.wav").write_bytes(b"old")
    status, _, errors = run("decode", "-o", tmp_path / "out", "--skip-existing", stdin=stream)
    assert status == 1
    assert "failed: b: " in errors
    assert (tmp_path / "out" / "a.wav").read_bytes() == b"old"


def test_two_items_are_too_many_for_standard_output(run, stream, tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(sound(0.3)))
    (tmp_path / "b.wav").write_bytes(wav(sound(0.3)))
    two = run("encode", tmp_path / "a.wav", tmp_path / "b.wav")[1]
    for options in ((), ("--raw",)):
        assert run("decode", *options, stdin=two)[:2] == (2, b"")
    assert run("decode", stdin=stream + stream)[:2] == (2, b"")


# ---------------------------------------------------------------------------------------------------- which codec


def test_a_codec_is_found_by_what_it_is_and_not_by_its_name(run, home, stream, tmp_path):
    expected = decoded(run, stream)[0]
    other = tmp_path / "other"
    folder = other / "models" / "of-mine"
    shutil.copytree(home / "models" / "codec-24khz", folder)
    install_codec(other, seed=7)  # another one under the name that the stream has
    back = run("decode", "--format", "wav", "--bits", 32, stdin=stream, home=other)
    assert back[0] == 0, back
    np.testing.assert_array_equal(soundfile.read(io.BytesIO(back[1]), dtype="float32")[0], expected[:, 0])
    empty = tmp_path / "empty"
    assert run("decode", "--model", folder, stdin=stream, home=empty)[0] == 0


def test_another_codec_under_that_name_is_refused(run, stream, tmp_path):
    install_codec(tmp_path / "other", seed=7)
    for options in ((), ("--model", "codec-24khz")):
        status, data, errors = run("decode", *options, stdin=stream, home=tmp_path / "other")
        assert (status, data) == (3, b"")
        assert "codec 'codec-24khz' is another one: its fingerprint is" in errors.splitlines()[0]


@pytest.mark.parametrize("name", ["codec-25khz", "../evil", "a; rm -rf /", "encodec-24khz"])
def test_a_codec_that_is_not_here_is_said_in_one_line(run, stream, tmp_path, name):
    status, data, errors = run(
        "decode", "-o", tmp_path / "x.wav", stdin=rewritten(stream, vocab=name, vocab_sha="0" * 64)
    )
    assert (status, data) == (4, b"")
    assert errors.startswith("mtk: error: the codec is not here: ")
    assert "--model" in errors.splitlines()[1]
    assert "hint: mtk models " in errors
    assert "rm -rf" not in errors.splitlines()[1]
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------- what goes wrong


def broken(stream: bytes) -> dict[str, bytes]:
    """Streams whose codes are not what they should be, though each is whole and sealed."""
    codes = items_of(stream)["stdin"][1]
    high, low = codes.copy(), codes.copy()
    high[3, 50], low[3, 50] = 64, -1
    return {
        "code 64 is out of range": rewritten(stream, codes=high),
        "code -1 is out of range": rewritten(stream, codes=low),
        "9 rows of codes": rewritten(stream, codes=np.concatenate([codes, codes[:1]])),
        "has none": rewritten(stream, scales=[0.5]),
        "a scale is out of range": rewritten(stream, scales=[-0.5]),
        "cannot be of 36500": rewritten(stream, samples=36_500, source_samples=36_500),
        "cannot be of 100000000000000": rewritten(stream, samples=10**14, source_samples=None),
        "cannot be of 30000": rewritten(stream, samples=30_000, source_samples=None),
        "are not 36000 at 24000": rewritten(stream, source_samples=99_000),
        "source has no rate": rewritten(stream, meta={"source": {"rate_hz": 10**9}}),
        "no rate that sound": rewritten(stream, meta={"source": "a tape"}),
        "the stream ends inside": stream[:-200],
        "the stream is empty": b"",
    }


def test_codes_that_make_no_sense_are_said_in_one_line_and_leave_no_file(run, stream, tmp_path):
    for said, data in broken(stream).items():
        for jobs in (1, 2):
            status, _, errors = run("decode", "-o", f"{tmp_path}/out/", "--jobs", jobs, stdin=data)
            assert status in (1, 3), said
            assert said in errors.splitlines()[0]
            assert len(errors.splitlines()) <= 2
            assert not list(tmp_path.rglob("*.*")), said


def test_a_stream_cut_anywhere_leaves_no_file(run, tmp_path):
    stream = run("encode", "--codebooks", 1, stdin=wav(sound(0.1)))[1]
    for length in range(0, len(stream), 7):
        status, _, errors = run("decode", "-o", tmp_path / "x.wav", stdin=stream[:length])
        assert status == 3, length
        assert errors.startswith("mtk: error: ")
        assert errors.count("mtk: ") == 1
        assert "line " in errors.splitlines()[0]
        assert not list(tmp_path.iterdir())


def test_more_codebooks_than_there_are_fail_the_item(run, stream):
    status, _, errors = run("decode", "--codebooks", 9, stdin=stream)
    assert status == 1
    assert "there are 8 codebooks in it, not 9" in errors


def test_what_is_too_loud_is_clipped_and_said_once(run, home, tmp_path):
    folder = tmp_path / "models" / "loud"
    shutil.copytree(home / "models" / "codec-24khz", folder)
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    last = max(name for name in tensors if name.startswith("decoder.") and name.endswith(".weight"))
    tensors[last] = tensors[last] * np.float32(1000)
    save_file(tensors, folder / "model.safetensors")
    stream = run("encode", "--model", folder, stdin=wav(sound(2)))[1]
    status, data, errors = run("decode", "--model", folder, "--format", "wav", stdin=stream)
    assert status == 0
    assert errors.count("warning: ") == 1
    assert "samples were clipped" in errors
    samples, _ = soundfile.read(io.BytesIO(data), dtype="int16")
    exact, _ = soundfile.read(
        io.BytesIO(run("decode", "--model", folder, "--bits", 32, "--format", "wav", stdin=stream)[1])
    )
    is_loud = np.abs(exact) > 1.01
    assert is_loud.any()
    np.testing.assert_array_equal(np.sign(samples[is_loud]), np.sign(exact[is_loud]))


def test_silence_and_half_a_millisecond_come_through(run):
    for samples in (np.zeros((RATE, 1), np.float32), sound(0.0005)):
        for model in ("codec-24khz", "stereo"):
            back, _ = decoded(run, run("encode", "--model", model, stdin=wav(samples))[1])
            assert len(back) == len(samples)
            assert np.isfinite(back).all()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--codebooks", "0"), 2, "codebooks"),
        (("--rate", "7"), 2, "no sound has a rate of 7 Hz"),
        (("--raw", "--format", "wav"), 2, "--raw writes no wav"),
        (("--raw", "-o", "x.flac"), 2, "--raw writes no flac"),
        (("--sample-format", "s17le"), 2, "sample-format"),
        (("-o", "x.flac", "--bits", "32"), 2, "flac has no samples of 32 bits"),
        (("--format", "mp3", "--rate", "96000"), 1, "no MP3 file has 1 channel at 96000 Hz"),
        (("--latency", "x"), 2, "no such latency"),
        (("--model", "nowhere"), 4, "no model named"),
        (("--model", "./nowhere"), 3, "no such file or folder"),
        (("--device", "cuda:99"), 5, "no such device"),
        (("--device", "cuda", "-o", "out/", "--jobs", "2"), 2, "--jobs"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run, stream, tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    got, data, errors = run("decode", *arguments, stdin=stream)
    assert (got, data) == (status, b""), errors
    assert message in errors.splitlines()[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "status"), [(("--model", "nowhere"), 4), (("--latency", "0.1", "--rate", "7"), 2)]
)
def test_what_codes_need_is_looked_for_before_they_come(run, arguments, status):
    assert run("decode", *arguments, stdin=b"nothing that could be read")[0] == status


def test_a_model_that_is_no_codec_is_refused(run, stream, tmp_path):
    from tests.small_models import install_small_note_tagger

    install_small_note_tagger(tmp_path)
    status, _, errors = run("decode", "--model", "note-tagger", stdin=stream, home=tmp_path)
    assert status == 2
    assert "no codec" in errors


# ------------------------------------------------------------------------------------------------- in real processes


def test_decoding_notes_does_not_wait_for_torch(waltz, tmp_path):
    code = (
        "import sys; from musictool.cli.main import main\n"
        "status = main(['decode', 'x.mtk', '-o', 'x.mid']); assert 'torch' not in sys.modules; sys.exit(status)"
    )
    command = [sys.executable, "-m", "musictool", "tokenize", str(waltz), "-o", "x.mtk"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)


def test_a_full_disk_ends_the_run_and_keeps_the_old_file(home, run, tmp_path):
    for name in "xy":
        (tmp_path / f"{name}.mtk").write_bytes(run("encode", stdin=wav(sound(20)))[1])
    (tmp_path / "stdin.wav").write_bytes(b"old")
    command = f"ulimit -f 64; {sys.executable} -m musictool decode x.mtk y.mtk -o '{{stem}}.wav' --force"
    environ = {**os.environ, "MTK_HOME": str(home)}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environ, capture_output=True, timeout=60)
    assert done.returncode == 3
    assert done.stderr.startswith(b"mtk: error: ")
    assert b"(stdin.wav)" in done.stderr
    assert done.stderr.count(b"mtk: ") == 1
    assert (tmp_path / "stdin.wav").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["stdin.wav", "x.mtk", "y.mtk"]


def test_a_player_that_leaves_ends_the_run_quietly(home, run, tmp_path):
    (tmp_path / "x.mtk").write_bytes(run("encode", stdin=wav(sound(20)))[1])
    command = [sys.executable, "-m", "musictool", "decode", "--raw", "x.mtk"]
    environ = {**os.environ, "MTK_HOME": str(home)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(1000)
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == b""
