"""`mtk decode` as a whole command, and the pipe `mtk tokenize | mtk decode`."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Notes, Score
from musictool.symbolic.schemes import SCHEMES, find_scheme

MTK = f"{sys.executable} -m musictool"


def columns(notes):
    notes = notes.sorted()
    steps = [np.rint(time * 100).astype(int).tolist() for time in (notes.onset_seconds, notes.offset_seconds)]
    others = [getattr(notes, name).tolist() for name in ("pitch", "velocity", "program", "is_drum")]
    return list(zip(*steps, *others))


@pytest.mark.parametrize("scheme", ["tatum", "mt3"])
def test_tokenize_then_decode_keeps_every_note(mtk, waltz, tmp_path, scheme):
    mtk("decode", "-o", tmp_path / "x.mid", stdin=mtk("tokenize", waltz, "--scheme", scheme).out)
    expected, _ = find_scheme(scheme).quantize(read_midi(waltz))
    assert columns(read_midi(tmp_path / "x.mid").notes) == columns(expected)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_metre_names_and_words_come_through(mtk, waltz, tmp_path, scheme):
    mtk("decode", "-o", tmp_path / "x.mid", stdin=mtk("tokenize", waltz, "--scheme", scheme).out)
    source, decoded = read_midi(waltz), read_midi(tmp_path / "x.mid")
    assert [s.numerator for s in decoded.time_signatures] == [3]
    assert decoded.key_signatures == source.key_signatures
    np.testing.assert_array_equal(decoded.tempo_map.start_quarters, source.tempo_map.start_quarters)
    rates = (60e6 / t.tempo_map.microseconds_per_quarter for t in (decoded, source))
    np.testing.assert_allclose(*rates, atol=0.5)
    assert {(t.name, t.program, t.is_drum) for t in decoded.tracks} == {
        (t.name, t.program, t.is_drum) for t in source.tracks
    }
    assert [lyric.text for lyric in decoded.lyrics] == ["One", "two", "three"]
    if scheme == "tatum":
        np.testing.assert_allclose(decoded.pedals.onset_seconds, source.pedals.onset_seconds, atol=0.006)


def test_standard_output_is_the_same_bytes_as_a_file(mtk, waltz, tmp_path):
    stream = mtk("tokenize", waltz).out
    mtk("decode", "-o", tmp_path / "x.mid", stdin=stream)
    assert mtk("decode", stdin=stream).out == (tmp_path / "x.mid").read_bytes()


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_sound_is_as_long_as_the_notes_and_not_silent(mtk, waltz, tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    assert mtk("decode", "-o", path, "--rate", 16000, stdin=mtk("tokenize", waltz).out).status == 0
    sound, rate = soundfile.read(path)
    end = read_midi(waltz).duration_seconds
    assert rate == 16000
    assert sound.shape[1] == 2
    assert end <= len(sound) / rate <= end + 3
    assert 0.05 < np.abs(sound).max() <= 1
    assert np.sqrt((sound[: int(end * rate)] ** 2).mean()) > 0.005


def test_sound_on_standard_output_is_a_whole_file(mtk, waltz):
    result = mtk("decode", "--format", "wav", "--rate", 8000, stdin=mtk("tokenize", waltz).out)
    sound, rate = soundfile.read(io.BytesIO(result.out))
    assert rate == 8000
    assert len(sound) > 8000


def test_items_become_files_and_the_bad_one_is_named(mtk, folder, tmp_path):
    result = mtk("decode", "-o", f"{tmp_path}/out/", stdin=mtk("tokenize", folder).out)
    assert result.status == 1
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.glob("out/**/*.mid")) == [
        "a.mid",
        "inner/c.mid",
    ]
    assert result.err.startswith("mtk: failed: b: ")


def test_jobs_write_the_same_files(mtk, folder, tmp_path):
    stream = mtk("tokenize", folder).out
    for jobs in (1, 3):
        mtk("decode", "-o", f"{tmp_path}/{jobs}/", "--jobs", jobs, stdin=stream)
    for name in ("a.mid", "inner/c.mid"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_two_items_are_too_many_for_one_output(mtk, folder, tmp_path):
    stream = mtk("tokenize", folder / "a.mid", folder / "inner" / "c.mid").out
    to_stdout = mtk("decode", stdin=stream)
    assert (to_stdout.status, to_stdout.out) == (2, b"")
    assert mtk("decode", "-o", tmp_path / "x.mid", stdin=stream).status == 2


def test_a_stream_cut_anywhere_leaves_no_file(mtk, tmp_path):
    tiny = write_midi(Score(Notes.of([0, 0.5], [0.4, 1.0], [60, 64])))
    stream = mtk("tokenize", "--scheme", "remi", stdin=tiny).out
    assert mtk("decode", "-o", tmp_path / "whole.mid", stdin=stream).status == 0
    for length in range(len(stream)):
        result = mtk("decode", "-o", tmp_path / "x.mid", stdin=stream[:length])
        assert result.status == 3, length
        assert "line " in result.err.splitlines()[0]
        assert result.err.count("\n") <= 2
        assert [p.name for p in tmp_path.iterdir()] == ["whole.mid"]


def test_an_items_name_cannot_leave_the_folder(mtk, waltz, tmp_path):
    stream = mtk("tokenize", waltz).out
    for name in ("../evil", "/evil", "a/../../evil", "nul\\u0000"):
        head, rest = stream.split(b"\n", 1)
        head = head.replace(b'"sealed":1,', b"").replace(b'"waltz"', f'"{name}"'.encode())
        lines = rest.splitlines(keepends=True)
        lines[-1] = lines[-1].split(b',"seal"')[0] + b"}\n"
        result = mtk("decode", "-o", f"{tmp_path}/out/", stdin=b"\n".join([head, b"".join(lines)]))
        assert result.status == 1, result.err
        assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    "meta",
    [
        '{"tempo":[[0]]}',
        '{"tempo":[[0,0]]}',
        '{"tempo":"fast"}',
        '{"tempo":[[0,1e400]]}',
        '{"time_signatures":[[0,4,3]]}',
        '{"tracks":[{"program":128}]}',
        '{"tracks":[3]}',
        '{"lyrics":[[0,1,2]]}',
        '{"ticks_per_quarter":0}',
        '{"key_signatures":[[0,9,0]]}',
    ],
)
def test_meta_that_makes_no_sense_fails_the_item(mtk, meta):
    vocabulary = find_scheme("tatum").vocabulary
    sha = hashlib.sha256(b"").hexdigest()
    names = f'"item":"x","kind":"events","vocab":"tatum","vocab_sha":"{vocabulary.fingerprint}"'
    head = f'{{"mtk":1,{names},"meta":{meta}}}'
    result = mtk("decode", stdin=f'{head}\n{{"end":1,"n":0,"sha":"{sha}"}}\n'.encode())
    assert result.status in (1, 3)
    assert result.err.startswith("mtk: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("-o", "x.mp7"),
        ("--format", "pdf"),
        ("-o", "x.wav", "--rate", "1"),
        ("-o", "x.flac", "--bits", "17"),
        ("-o", "x.wav", "--synthesizer", "moog"),
        ("-o", "x.wav", "--soundfont", "nowhere.sf2"),
    ],
)
def test_wrong_usage_is_one_line(mtk, waltz, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = mtk("decode", *arguments, stdin=mtk("tokenize", waltz).out)
    assert result.status in (2, 3)
    assert result.err.startswith("mtk: error: ")
    assert result.err.count("\n") <= 2
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------- in real processes


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-c", f'mtk() {{ {MTK} "$@"; }}; {command}'], cwd=cwd, capture_output=True, timeout=120
    )


def test_a_bad_file_between_good_ones_is_named_at_the_end_of_the_pipe(folder, tmp_path):
    done = shell(
        f"cd {folder}; mtk tokenize a.mid b.mid inner/c.mid | mtk decode -o {tmp_path}/out/; echo ${{PIPESTATUS[1]}}",
        tmp_path,
    )
    assert done.stdout == b"1\n"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.mid", "c.mid"]
    assert b"mtk: failed: b: " in done.stderr


def test_sound_through_a_real_pipe_is_the_same_file(waltz, tmp_path):
    shell(f"mtk tokenize {waltz} | mtk decode -o x.wav --rate 8000", tmp_path)
    done = shell(f"mtk tokenize {waltz} | mtk decode --format wav --rate 8000 | cat > y.wav", tmp_path)
    assert done.stderr == b""
    assert (tmp_path / "x.wav").read_bytes() == (tmp_path / "y.wav").read_bytes()


def test_a_reader_that_leaves_early_is_no_error(folder, tmp_path):
    done = shell(f"mtk tokenize {folder / 'a.mid'} {folder / 'inner'} | head -c 10; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert done.stdout.endswith(b"0\n")
    assert done.stderr == b""


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_leaves_no_half_file(mtk, tmp_path, name, status):
    half_an_hour = np.arange(0, 1800, 0.5)
    long = write_midi(Score(Notes.of(half_an_hour, half_an_hour + 0.4, np.full(3600, 60))))
    command = [*MTK.split(), "decode", "-o", "x.wav", "--synthesizer", "builtin"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        process.stdin.write(mtk("tokenize", stdin=long).out)
        process.stdin.close()
        deadline = time.monotonic() + 60
        while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [path.suffix for path in tmp_path.iterdir()] == [".part"], "the work is under way"
        process.send_signal(getattr(signal, name))
        assert process.wait(60) == status
        assert process.stderr.read() == b""
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_old_file(waltz, tmp_path):
    old = tmp_path / "x.wav"
    old.write_bytes(b"old")
    done = shell(f"ulimit -f 64; mtk tokenize {waltz} | mtk decode -o x.wav --force; echo ${{PIPESTATUS[1]}}", tmp_path)
    assert done.stdout == b"3\n"
    assert done.stderr.startswith(b"mtk: error: ")
    assert b"(x.wav)" in done.stderr
    assert old.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.wav"]
