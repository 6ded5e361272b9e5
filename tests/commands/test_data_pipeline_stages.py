"""The stages of `mtk data`, one by one and piped: what they make, how they go on, and what they refuse."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictool.audio.loudness import LoudnessMeter
from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Notes, Score, Track
from tests.demucs_stub import install_demucs, remove_demucs
from tests.small_models import install_codec

RATE = 16_000
needs_stretcher = pytest.mark.skipif(importlib.util.find_spec("python_stretch") is None, reason="needs python-stretch")


def music(seconds: float, rate_hz: int = RATE, seed: int = 0, level: float = 0.3) -> np.ndarray:
    """Some tones and a little noise, float32 [n, 1]."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    tones = sum(np.sin(2 * np.pi * hz * time) for hz in generator.uniform(100, 2000, 5)) / 5
    return (level * (tones + 0.05 * generator.normal(size=len(time))))[:, None].astype(np.float32)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Three recordings of other rates, channels and containers, one of them in a folder, and one that is none."""
    folder = tmp_path / "recordings"
    (folder / "in").mkdir(parents=True)
    soundfile.write(folder / "a.wav", music(6, seed=1), RATE)
    soundfile.write(folder / "b.flac", np.repeat(music(4, 44_100, seed=2, level=0.01), 2, axis=1), 44_100)
    soundfile.write(folder / "in" / "c.ogg", music(5, 22_050, seed=3), 22_050)
    (folder / "broken.wav").write_bytes(b"RIFF")
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Two items of a lead and a backing, of which the lead's notes are known."""
    folder = tmp_path / "pairs"
    lines = []
    for name, seconds in (("x", 6.0), ("y", 4.0)):
        parts = {}
        for part, seed in (("lead", 1), ("backing", 2)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / part / f"{name}.flac", music(seconds, seed=seed), RATE)
            parts[part] = {"file": f"{part}/{name}.flac"}
        notes = Notes.of(np.arange(0.5, seconds), np.arange(1.0, seconds + 0.5), 60 + np.arange(seconds), 80, 66)
        (folder / "lead" / f"{name}.mid").write_bytes(write_midi(Score(notes, (Track("sax", 66),))))
        parts["lead"]["notes"] = f"lead/{name}.mid"
        lines.append(json.dumps({"name": name, "piece": "tune", "parts": parts, "about": {"performer": "Ann"}}))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def manifest(folder: Path) -> dict[str, dict]:
    records = [json.loads(line) for path in sorted(folder.glob("manifest*")) for line in path.read_text().splitlines()]
    return {record["name"]: record for record in records}


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def read(path: Path) -> tuple[np.ndarray, int]:
    return soundfile.read(path, dtype="float32", always_2d=True)


# ------------------------------------------------------------------------------------------------------------ ingest


def test_recordings_of_any_kind_become_alike(mtk, recordings, tmp_path):
    done = mtk("data", "ingest", recordings, "-o", tmp_path / "raw", "--rate", RATE)
    assert done.status == 1
    assert "failed: broken: " in done.err
    assert "3 in" not in done.err
    assert "4 in, 3 out" in done.err
    found = manifest(tmp_path / "raw")
    assert {name: record["seconds"] for name, record in found.items()} == {"a": 6.0, "b": 4.0, "in/c": 5.0}
    for name, record in found.items():
        info = soundfile.info(tmp_path / "raw" / record["parts"]["mix"]["file"])
        assert (info.samplerate, info.channels, info.subtype, info.format) == (RATE, 1, "PCM_16", "FLAC")
        assert info.frames == round(record["seconds"] * RATE)
        assert record["piece"] == name
    source, _ = read(recordings / "a.wav")
    np.testing.assert_array_equal(read(tmp_path / "raw" / "a.flac")[0], source)
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line.get("name") for line in lines] == ["a", "b", "in/c", None]
    assert lines[0]["parts"]["mix"]["file"] == str(tmp_path / "raw" / "a.flac")
    assert lines[-1] == {"end": 1}


def test_more_bits_and_channels_are_kept_from_stage_to_stage(mtk, recordings, tmp_path):
    run = ("data", "ingest", recordings / "b.flac", "-o", tmp_path / "raw", "--bits", 24, "--channels", 2)
    piped = mtk(*run).out
    assert mtk("data", "loudness", "-o", tmp_path / "loud", stdin=piped).status == 0
    info = soundfile.info(tmp_path / "loud" / "b.flac")
    assert (info.samplerate, info.channels, info.subtype) == (32_000, 2, "PCM_24")


def test_a_recording_that_breaks_off_is_left_out(mtk, recordings, tmp_path):
    whole = (recordings / "in" / "c.ogg").read_bytes()
    (recordings / "in" / "c.ogg").write_bytes(whole[: len(whole) // 2])
    done = mtk("data", "ingest", recordings / "in", recordings / "a.wav", "-o", tmp_path / "raw")
    assert done.status == 1
    assert "ends before the sound does" in done.err
    assert list(manifest(tmp_path / "raw")) == ["a"]
    assert "c.flac" not in files(tmp_path / "raw")


def test_recordings_are_listed_in_a_file_or_on_standard_input(mtk, recordings, tmp_path):
    text = f"# mine\n{recordings / 'a.wav'}\n\n{recordings / 'in'}\n"
    (tmp_path / "list.txt").write_text(text)
    assert mtk("data", "ingest", tmp_path / "list.txt", "-o", tmp_path / "1").status == 0
    assert mtk("data", "ingest", "-", "-o", tmp_path / "2", stdin=text.encode()).status == 0
    assert files(tmp_path / "1") == files(tmp_path / "2")
    assert list(manifest(tmp_path / "1")) == ["a", "c"]
    assert mtk("data", "ingest", "-", "-o", tmp_path / "3", stdin=b"\n").status == 3


def test_addresses_are_fetched_by_yt_dlp(mtk, recordings, tmp_path, monkeypatch):
    class Error(Exception):
        pass

    class Downloader:
        def __init__(self, options):
            self.target = options["outtmpl"]["default"]

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def download(self, addresses):
            if "missing" in addresses[0]:
                raise Error("ERROR: no such video\nmore of it")
            shutil.copyfile(recordings / "a.wav", self.target.replace("%(ext)s", "wav"))

    module = type(sys)("yt_dlp")
    module.YoutubeDL, module.utils = Downloader, type(sys)("utils")
    module.utils.YoutubeDLError = Error
    monkeypatch.setitem(sys.modules, "yt_dlp", module)
    addresses = ("https://www.example.com/watch?v=1", "https://example.com/missing")
    done = mtk("data", "ingest", *addresses, "-o", tmp_path / "raw", "--rate", RATE)
    assert done.status == 1
    assert "cannot fetch: no such video (https://example.com/missing)" in done.err
    (record,) = manifest(tmp_path / "raw").values()
    assert record["name"].startswith("example-com-watch-v-1-")
    assert record["about"] == {"address": addresses[0]}
    assert len(record["source_sha256"]) == 64
    np.testing.assert_array_equal(read(tmp_path / "raw" / f"{record['name']}.flac")[0], read(recordings / "a.wav")[0])
    monkeypatch.setattr(module, "YoutubeDL", None)  # nothing is fetched a second time
    again = mtk("data", "ingest", addresses[0], "-o", tmp_path / "raw", "--rate", RATE, "--skip-existing")
    assert again.status == 0


# ---------------------------------------------------------------------------------------------------------- loudness


def lufs(sounds: list[np.ndarray], rate_hz: int) -> float:
    meter = LoudnessMeter(rate_hz, 1)
    meter.add(sum(sounds))
    return meter.finish().integrated_lufs


def test_recordings_become_equally_loud_and_no_louder_than_their_peaks_allow(mtk, recordings, tmp_path):
    (recordings / "broken.wav").unlink()
    spiky = music(4, level=0.01)
    spiky[RATE] = 0.9
    soundfile.write(recordings / "spiky.wav", spiky, RATE)
    soundfile.write(recordings / "silent.wav", np.zeros((RATE, 1)), RATE)
    piped = mtk("data", "ingest", recordings, "-o", tmp_path / "raw", "--rate", RATE).out
    assert mtk("data", "loudness", "-o", tmp_path / "loud", "--target", -20, stdin=piped).status == 0
    found = manifest(tmp_path / "loud")
    for name in ("a", "b", "in/c"):
        assert lufs([read(tmp_path / "loud" / f"{name}.flac")[0]], RATE) == pytest.approx(-20, abs=0.02)
    result = found["spiky"]["made"][-1]["result"]
    assert result["true_peak_dbtp"] + result["gain_db"] == pytest.approx(5.0, abs=0.01)  # 6 dB over the ceiling
    assert result["limited_db"] == pytest.approx(6.0, abs=0.01)
    assert peak_decibels(tmp_path / "loud" / "spiky.flac") == pytest.approx(-1.0, abs=0.1)
    silent = {"lufs": None, "true_peak_dbtp": None, "gain_db": 0.0, "limited_db": 0.0}
    assert found["silent"]["made"][-1]["result"] == silent
    assert mtk("data", "loudness", "-o", tmp_path / "plain", "--target", -20, "--limit", 0, stdin=piped).status == 0
    raw, plain = (read(tmp_path / folder / "spiky.flac")[0] for folder in ("raw", "plain"))
    gain = 10 ** (manifest(tmp_path / "plain")["spiky"]["made"][-1]["result"]["gain_db"] / 20)
    np.testing.assert_allclose(plain, raw * gain, atol=1e-4)


def peak_decibels(path: Path) -> float:
    sound, rate_hz = read(path)
    meter = LoudnessMeter(rate_hz, sound.shape[1])
    meter.add(sound)
    return 20 * math.log10(meter.finish().true_peak)


def test_peaks_of_the_sum_of_the_parts_are_turned_down_in_all_of_them(mtk, tmp_path):
    folder = tmp_path / "parts"
    stroke = np.zeros((3 * RATE, 1), np.float32)
    stroke[RATE : RATE + 400] = 0.4 * music(400 / RATE)
    for part in ("lead", "backing"):
        (folder / part).mkdir(parents=True)
        soundfile.write(folder / part / "x.flac", 0.1 * music(3, seed=1) + stroke, RATE)
    parts = {part: {"file": f"{part}/x.flac"} for part in ("lead", "backing")}
    (folder / "manifest.jsonl").write_text(json.dumps({"name": "x", "parts": parts}))
    assert mtk("data", "loudness", folder, "-o", tmp_path / "loud", "--target", -14, "--ceiling", -9).status == 0
    lead, backing = (read(tmp_path / "loud" / part / "x.flac")[0] for part in ("lead", "backing"))
    np.testing.assert_array_equal(lead, backing)
    assert manifest(tmp_path / "loud")["x"]["made"][-1]["result"]["limited_db"] > 1
    assert 20 * math.log10(np.abs(lead + backing).max()) <= -8.9


def test_parts_keep_their_balance(mtk, pairs, tmp_path):
    assert mtk("data", "loudness", pairs, "-o", tmp_path / "loud", "--target", -23).status == 0
    gains = []
    for part in ("lead", "backing"):
        before, after = (read(folder / part / "x.flac")[0] for folder in (pairs, tmp_path / "loud"))
        gains.append(float(np.abs(after).max() / np.abs(before).max()))
    assert gains[0] == pytest.approx(gains[1], rel=1e-3)
    assert lufs([read(tmp_path / "loud" / part / "x.flac")[0] for part in ("lead", "backing")], RATE) == pytest.approx(
        -23, abs=0.02
    )
    record = manifest(tmp_path / "loud")["x"]
    assert record["about"] == {"performer": "Ann"}
    notes = read_midi(tmp_path / "loud" / record["parts"]["lead"]["notes"])
    assert len(notes.notes) == 6


# ---------------------------------------------------------------------------------------------------------- separate


def test_a_mix_is_taken_apart_into_two_parts_that_add_up(mtk, recordings, tmp_path, monkeypatch):
    install_demucs(monkeypatch, share=0.25)
    run = ("data", "separate", recordings / "b.flac", "-o", tmp_path / "apart", "--device", "cpu")
    assert mtk(*run).status == 0
    mix, rate_hz = read(recordings / "b.flac")
    lead, backing = (read(tmp_path / "apart" / part / "b.flac") for part in ("lead", "backing"))
    assert lead[1] == backing[1] == rate_hz
    np.testing.assert_allclose(lead[0] + backing[0], mix, atol=1e-4)
    np.testing.assert_allclose(lead[0], 0.25 * mix, atol=1e-4)
    assert list(manifest(tmp_path / "apart")["b"]["parts"]) == ["backing", "lead"]
    twice = mtk("data", "separate", tmp_path / "apart", "-o", tmp_path / "again", "--device", "cpu")
    assert twice.status == 1
    assert "it has parts already" in twice.err


def test_what_is_not_installed_is_said_in_a_line_before_anything_is_done(mtk, recordings, tmp_path, monkeypatch):
    remove_demucs(monkeypatch)
    for name in ("yt_dlp", "python_stretch"):
        monkeypatch.setitem(sys.modules, name, None)
    for run, extra in (
        (("separate", recordings), "separate"),
        (("augment", recordings), "stretch"),
        (("ingest", "https://example.com/x"), "fetch"),
    ):
        done = mtk("data", *run, "-o", tmp_path / "out")
        assert done.status == 4
        assert done.err.splitlines()[1] == f"hint: pip install 'musictool[{extra}]'"
        assert len(done.err.splitlines()) == 2
        assert not (tmp_path / "out").exists()


# --------------------------------------------------------------------------------------------------- windows and clips


def test_windows_are_where_it_is_loud_for_long(mtk, tmp_path):
    sound = np.concatenate([music(2, level=0.001), music(6), music(4, level=0.001), music(1), music(3, level=0.001)])
    soundfile.write(tmp_path / "x.wav", sound, RATE)
    options = ("--frame", 1, "--least", 3, "--threshold", 0.08)
    done = mtk("data", "windows", tmp_path / "x.wav", *options)
    (window, end) = (json.loads(line) for line in done.out.splitlines())
    assert end == {"end": 1}
    start, stop = window["span"]
    assert 1.0 <= start <= 2.0
    assert 8.0 <= stop <= 9.0
    assert window["seconds"] == pytest.approx(stop - start)
    assert (tmp_path / "x.wav").is_file()
    assert mtk("data", "clips", "-o", tmp_path / "clips", stdin=done.out).status == 0
    clip, _ = read(tmp_path / "clips" / "x-w001.flac")
    np.testing.assert_array_equal(clip, read(tmp_path / "x.wav")[0][round(start * RATE) : round(stop * RATE)])
    record = manifest(tmp_path / "clips")["x-w001"]
    assert "span" not in record
    assert record["start_seconds"] == start
    assert record["piece"] == "x"


def test_windows_are_measured_in_the_lead_and_cut_out_of_all_parts_with_the_notes(mtk, pairs, tmp_path):
    quiet = read(pairs / "lead" / "y.flac")[0] * 0.001
    soundfile.write(pairs / "lead" / "y.flac", quiet, RATE)
    options = ("--frame", 1, "--least", 2)
    windows = mtk("data", "windows", pairs, *options, "-o", tmp_path / "windows")
    assert "2 in, 1 out" in windows.err
    assert mtk("data", "windows", pairs, *options, "--part", "backing").out.count(b'"span"') == 2
    assert "no part 'bass'" in mtk("data", "windows", pairs, *options, "--part", "bass").err
    assert mtk("data", "clips", tmp_path / "windows", "-o", tmp_path / "clips", "--seconds", 2).status == 0
    found = manifest(tmp_path / "clips")
    assert [round(record["seconds"], 3) for record in found.values()] == [2.0, 2.0, 2.0]
    second = found["x-w001-c002"]
    for part in ("lead", "backing"):
        clip = read(tmp_path / "clips" / second["parts"][part]["file"])[0]
        np.testing.assert_array_equal(clip, read(pairs / part / "x.flac")[0][2 * RATE : 4 * RATE])
    notes = read_midi(tmp_path / "clips" / second["parts"]["lead"]["notes"]).notes
    assert notes.pitch.tolist() == [62, 63]
    np.testing.assert_allclose(notes.onset_seconds, [0.5, 1.5], atol=1e-3)
    assert "notes" not in second["parts"]["backing"]
    done = mtk("data", "encode", tmp_path / "windows", "-o", tmp_path / "codes", "--device", "cpu")
    assert done.status != 0


# ----------------------------------------------------------------------------------------------------------- augment


@needs_stretcher
def test_versions_have_the_pitch_and_the_length_that_their_names_say(mtk, pairs, tmp_path):
    done = mtk("data", "augment", pairs, "-o", tmp_path / "versions", "--semitones=-2", "--tempo", "1.25")
    assert done.status == 0, done.err
    found = manifest(tmp_path / "versions")
    assert list(found) == [f"{name}{version}" for name in "xy" for version in ("", "-pitch-2", "-tempo1.25")]
    assert [found[name]["seconds"] for name in ("x", "x-pitch-2", "x-tempo1.25")] == [6.0, 6.0, 4.8]
    assert {record["piece"] for record in found.values()} == {"tune"}
    np.testing.assert_array_equal(
        read(tmp_path / "versions" / "lead" / "x.flac")[0], read(pairs / "lead" / "x.flac")[0]
    )
    for name, record in found.items():
        lengths = {soundfile.info(tmp_path / "versions" / part["file"]).frames for part in record["parts"].values()}
        assert lengths == {round(record["seconds"] * RATE)}, name
    notes = {
        name: read_midi(tmp_path / "versions" / found[name]["parts"]["lead"]["notes"]).notes
        for name in ("x", "x-pitch-2", "x-tempo1.25")
    }
    np.testing.assert_array_equal(notes["x-pitch-2"].pitch, notes["x"].pitch - 2)
    np.testing.assert_allclose(notes["x-tempo1.25"].onset_seconds, notes["x"].onset_seconds / 1.25, atol=2e-3)
    assert found["x-pitch-2"]["made"][-1]["result"] == {"semitones": -2, "tempo": 1.0}


@needs_stretcher
def test_a_version_that_would_be_clipped_is_softer_in_all_its_parts(mtk, tmp_path):
    folder = tmp_path / "loud"
    for part, level in (("lead", 0.98), ("backing", 0.5)):
        (folder / part).mkdir(parents=True)
        square = level * np.sign(np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE))
        soundfile.write(folder / part / "x.flac", square, RATE)
    parts = {part: {"file": f"{part}/x.flac"} for part in ("lead", "backing")}
    (folder / "manifest.jsonl").write_text(json.dumps({"name": "x", "parts": parts}))
    assert mtk("data", "augment", folder, "-o", tmp_path / "out", "--semitones", "none", "--tempo", "0.9").status == 0
    peaks = [np.abs(read(tmp_path / "out" / part / "x-tempo0.9.flac")[0]).max() for part in ("lead", "backing")]
    assert peaks[0] <= 1.0
    assert peaks[1] / peaks[0] == pytest.approx(0.5 / 0.98, rel=0.05)


# ------------------------------------------------------------------------------------------------------------ encode


def test_parts_are_encoded_as_mtk_encode_does(mtk, pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("MTK_HOME", str(tmp_path / "home"))
    install_codec(tmp_path / "home")
    run = ("data", "encode", pairs, "-o", tmp_path / "codes", "--device", "cpu", "--codebooks", 2)
    done = mtk(*run)
    assert done.status == 0, done.err
    record = manifest(tmp_path / "codes")["x"]
    assert [part["file"] for part in record["parts"].values()] == ["lead/x.mtk", "backing/x.mtk"]
    assert record["made"][-1]["codebooks"] == 2
    coded = [json.loads(line) for line in (tmp_path / "codes" / "lead" / "x.mtk").read_text().splitlines()]
    assert (coded[0]["kind"], coded[0]["item"]) == ("codes", "x")
    environment = Environment(io.BytesIO(), io.BytesIO(), io.StringIO(), os.environ)
    assert main(["encode", str(pairs / "lead" / "x.flac"), "--codebooks", "2", "--device", "cpu"], environment) == 0
    theirs = [json.loads(line) for line in environment.stdout.getvalue().splitlines()]
    codes = [
        np.concatenate([np.array(line["c"]) for line in lines if "c" in line], axis=1) for lines in (coded, theirs)
    ]
    np.testing.assert_array_equal(*codes)
    assert coded[-1]["samples"] == theirs[-1]["samples"]


# ------------------------------------------------------------------------------------------------------- all of them


def test_stages_pipe(mtk, recordings, tmp_path):
    out = mtk("data", "ingest", recordings, "-o", tmp_path / "raw", "--rate", RATE).out
    out = mtk("data", "loudness", "-", "-o", tmp_path / "loud", stdin=out).out
    out = mtk("data", "windows", "--frame", 1, "--least", 2, stdin=out).out
    done = mtk("data", "clips", "-", "-o", tmp_path / "clips", "--seconds", 2, "--least", 1, stdin=out)
    assert done.status == 0
    assert len(manifest(tmp_path / "clips")) == 3 + 2 + 3
    steps = [step["stage"] for step in manifest(tmp_path / "clips")["a-w001-c001"]["made"]]
    assert steps == ["ingest", "loudness", "windows", "clips"]
    folder = mtk("data", "clips", tmp_path / "loud", "-o", tmp_path / "others", "--seconds", 2)
    assert folder.status == 0
    cut = mtk("data", "loudness", "-o", tmp_path / "cut", stdin=out[: len(out) // 2])
    assert cut.status == 3
    assert not (tmp_path / "cut" / "manifest.jsonl").exists()


def test_a_stage_goes_on_where_it_was_cut_off(mtk, recordings, tmp_path):
    run = ("data", "ingest", recordings, "-o", tmp_path / "raw", "--rate", RATE)
    assert mtk(*run).status == 1
    whole = files(tmp_path / "raw")
    refused = mtk(*run)
    assert refused.status == 2
    assert "--skip-existing" in refused.err
    (tmp_path / "raw" / "in" / "c.flac").unlink()
    (tmp_path / "raw" / "manifest.jsonl").unlink()
    journal = tmp_path / "raw" / ".journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:2]))  # only `a` is known to be done
    untouched = (tmp_path / "raw" / "a.flac").stat().st_mtime_ns
    again = mtk(*run, "--skip-existing")
    assert again.status == 1
    assert files(tmp_path / "raw") == whole
    assert (tmp_path / "raw" / "a.flac").stat().st_mtime_ns == untouched
    assert (
        again.out
        == b"".join(
            line.replace(b'"file":"', b'"file":"' + os.fsencode(tmp_path / "raw") + b"/") + b"\n"
            for line in [*whole["manifest.jsonl"].splitlines()]
        )
        + b'{"end":1}\n'
    )


def test_jobs_and_shards_make_the_same_files(mtk, recordings, tmp_path):
    for jobs in (1, 3):
        run = ("data", "ingest", recordings, "-o", tmp_path / str(jobs), "--rate", RATE, "--jobs", jobs)
        assert mtk(*run).status == 1
    assert files(tmp_path / "1") == files(tmp_path / "3")
    for share in ("1/2", "2/2"):
        assert mtk("data", "ingest", recordings, "-o", tmp_path / "shares", "--rate", RATE, "--shard", share).status < 2
    shares, whole = files(tmp_path / "shares"), files(tmp_path / "1")
    assert {n: c for n, c in shares.items() if n.endswith(".flac")} == {
        n: c for n, c in whole.items() if n.endswith(".flac")
    }
    assert (
        mtk("data", "windows", tmp_path / "shares", "--least", 1, "--frame", 1, "--threshold", 0).out.count(b'"span"')
        == 3
    )


def test_a_changed_setting_is_refused_and_made_again_when_told(mtk, recordings, tmp_path):
    run = ("data", "loudness", recordings / "a.wav", recordings / "b.flac", "-o", tmp_path / "loud")
    assert mtk(*run).status == 0
    before = files(tmp_path / "loud")
    refused = mtk(*run, "--target", -20, "--skip-existing")
    assert refused.status == 2
    assert "target_lufs -14.0, not -20.0" in refused.err
    assert files(tmp_path / "loud") == before
    assert mtk(*run, "--target", -20, "--force").status == 0
    fresh = mtk(*run[:-1], tmp_path / "fresh", "--target", -20)
    assert fresh.status == 0
    assert files(tmp_path / "loud") == files(tmp_path / "fresh")


def test_a_changed_recording_is_told_from_the_one_before(mtk, recordings, tmp_path):
    run = ("data", "loudness", recordings / "a.wav", "-o", tmp_path / "loud")
    assert mtk(*run).status == 0
    soundfile.write(recordings / "a.wav", music(3, seed=9), RATE)
    refused = mtk(*run, "--skip-existing")
    assert refused.status == 1
    assert "made of something else" in refused.err
    assert manifest(tmp_path / "loud")["a"]["seconds"] == 6.0
    assert mtk(*run, "--force").status == 0
    assert manifest(tmp_path / "loud")["a"]["seconds"] == 3.0


@pytest.mark.parametrize(
    ("run", "status"),
    [
        (("loudness", "--target", 5), 2),
        (("loudness", "--force", "--skip-existing"), 2),
        (("windows", "--frame", 1.05), 2),
        (("windows", "--skip-existing"), 2),
        (("clips", "--every", 3), 2),
        (("augment", "--tempo", "fast"), 2),
        (("augment", "--semitones", "13"), 2),
        (("ingest", "--bits", 8), 2),
        (("separate", "--device", "tpu"), 2),
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(mtk, recordings, tmp_path, monkeypatch, run, status):
    install_demucs(monkeypatch)
    output = () if run[0] == "windows" else ("-o", tmp_path / "out")
    done = mtk("data", run[0], recordings / "a.wav", *output, *run[1:])
    assert done.status == status, done.err
    assert done.err.startswith("mtk: error: ")
    assert not (tmp_path / "out").exists()


def test_inputs_that_are_none_are_named(mtk, recordings, tmp_path):
    (tmp_path / "empty").mkdir()
    for argument in (tmp_path / "nowhere", tmp_path / "empty", tmp_path / "no.jsonl"):
        done = mtk("data", "clips", argument, "-o", tmp_path / "out")
        assert done.status == 3, argument
        assert len(done.err.splitlines()) <= 2
    text = mtk("data", "clips", recordings, "-o", tmp_path / "out")
    assert text.status == 1
    assert "failed: broken: " in text.err
    assert "mtk data ingest" in text.err


def test_a_folder_that_cannot_be_written_ends_the_run_in_a_line(mtk, recordings, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    done = mtk("data", "ingest", recordings, "-o", tmp_path / "file" / "raw")
    assert done.status == 3
    assert len(done.err.splitlines()) == 2

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("musictool.training.data.pipeline.outlet.os.fsync", full)
    done = mtk("data", "clips", recordings / "a.wav", "-o", tmp_path / "clips")
    assert done.status == 3
    assert "no space left on device" in done.err
    assert len(done.err.splitlines()) == 2
    assert "a.flac" not in files(tmp_path)


def test_a_split_keeps_the_versions_of_a_recording_together(mtk, tmp_path):
    folder = tmp_path / "clips"
    lines = []
    for song in range(30):
        for clip in range(2):
            for part in ("lead", "backing"):
                (folder / part).mkdir(parents=True, exist_ok=True)
                (folder / part / f"s{song}-w00{clip}.flac").touch()
            parts = {part: {"file": f"{part}/s{song}-w00{clip}.flac"} for part in ("lead", "backing")}
            lines.append(json.dumps({"name": f"s{song}-w00{clip}", "piece": f"song {song % 20}", "parts": parts}))
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    done = mtk("data", "split", folder, "--fractions", "train=.6,test=.4", "--seed", 67)
    rows = [line.split("\t") for line in done.out.decode().splitlines()]
    assert len(rows) == 120
    sides: dict[str, set[str]] = {}
    for side, stem, _ in rows:
        song = int(stem.partition("/s")[2].partition("-")[0]) % 20
        sides.setdefault(f"song {song}", set()).add(side)
    assert all(len(found) == 1 for found in sides.values())
    assert {side for found in sides.values() for side in found} == {"train", "test"}
    assert math.isclose(sum(side == "train" for side, *_ in rows) / 120, 0.6, abs_tol=0.3)


def test_windows_are_not_split_before_they_are_cut(mtk, recordings, tmp_path):
    run = ("data", "windows", recordings / "a.wav", "--frame", 1, "--least", 1, "-o", tmp_path / "windows")
    assert mtk(*run).status == 0
    done = mtk("data", "split", tmp_path / "windows")
    assert done.status == 3
    assert "mtk data clips" in done.err
