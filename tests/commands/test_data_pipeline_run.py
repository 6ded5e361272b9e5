"""`mtk data run`: killed at any write and run again, the same bytes; what may go, goes; what changed is noticed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictool.errors import InputError
from musictool.symbolic.corpus import load_pyarrow
from musictool.symbolic.midi_writing import write_midi
from musictool.symbolic.notes import Notes, Score
from musictool.training.data.pipeline import clips, ingest, loudness, windows
from tests.small_models import install_codec

RATE = 8_000
ROOT = Path(__file__).parents[2]
needs_stretcher = pytest.mark.skipif(importlib.util.find_spec("python_stretch") is None, reason="needs python-stretch")
PIPELINE = f"""
[ingest]
rate_hz = {RATE}
keep = false

[loudness]
keep = false

[windows]
frame_seconds = 0.4
least_seconds = 1
threshold = 0.02

[clips]
seconds = 1
least_seconds = 0.5

[split]
fractions = "train=.5,test=.5"
"""


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for number, name in enumerate(("a", "b", "silent")):
        generator = np.random.default_rng(number)
        sound = generator.normal(0, 0 if name == "silent" else 0.1, (RATE * (2 + number), 1))
        soundfile.write(folder / f"{name}.wav", sound, RATE)
    return folder


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    path = tmp_path / "pipeline.toml"
    path.write_text(PIPELINE)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def manifest(folder: Path) -> dict[str, dict]:
    return {record["name"]: record for record in map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())}


def test_a_pipeline_keeps_what_it_is_told_to_keep(mtk, recordings, pipeline, tmp_path):
    done = mtk("data", "run", pipeline, recordings, "-o", tmp_path / "out")
    assert done.status == 0, done.err
    made = files(tmp_path / "out")
    assert [name for name in made if name.endswith(".flac")] == [
        f"clips/{name}-w001-c00{clip}.flac" for name in "ab" for clip in (1, 2, 3) if (name, clip) != ("a", 3)
    ]
    assert "loudness: 3 in, 3 out" in done.err
    assert "windows: 3 in, 2 out" in done.err
    steps = [step["stage"] for step in manifest(tmp_path / "out" / "clips")["b-w001-c003"]["made"]]
    assert steps == ["ingest", "loudness", "windows", "clips"]
    lists = [line for side in ("train", "test") for line in made[f"split/{side}.txt"].decode().splitlines()]
    stems = sorted(line for line in lists if not line.startswith("#"))
    assert stems == [f"../clips/{name}" for name in manifest(tmp_path / "out" / "clips")]


def test_a_second_run_does_nothing_twice(mtk, recordings, pipeline, tmp_path, monkeypatch):
    run = ("data", "run", pipeline, recordings, "-o", tmp_path / "out")
    assert mtk(*run).status == 0
    before = files(tmp_path / "out")
    for stage in (ingest, loudness, windows, clips):
        monkeypatch.setattr(stage, "make", None)
    assert mtk(*run).status == 0
    assert files(tmp_path / "out") == before


KILLED_AT_ANY_WRITE = """
import io, os, shutil, signal, sys
from pathlib import Path
from musictool.cli.environment import Environment
from musictool.cli.main import main
import musictool.commands.data_run, musictool.training.data.pipeline.ingest  # before anything is forked
import musictool.training.data.pipeline.loudness, musictool.training.data.pipeline.windows
import musictool.training.data.pipeline.clips, musictool.training.data.splitting

points, folder, arguments = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]


def run(kill_at=None):
    # In a process of its own, which kills itself before its n-th write to the disk.
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    writes = 0

    def counted(function):
        def call(*arguments, **options):
            nonlocal writes
            writes += 1
            if writes == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in ("fsync", "replace", "unlink", "link", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))
    status = main([*arguments, "-o", str(folder)], Environment(io.BytesIO(), io.BytesIO(), io.StringIO()))
    (folder.parent / "writes").write_text(str(writes))
    os._exit(status)


def files():
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


assert run() == 0
whole, count, killed = files(), int((folder.parent / "writes").read_text()), 0
for kill_at in range(1, count, max(1, count // points)):
    shutil.rmtree(folder)
    killed += os.WIFSIGNALED(run(kill_at))
    if kill_at % 2:
        killed += os.WIFSIGNALED(run(count // 3))
    assert run() == 0
    assert files() == whole, kill_at
print(count, killed)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("points", [8, pytest.param(1000, marks=pytest.mark.slow)])
def test_killed_at_any_write_and_run_again_it_makes_the_same_bytes(recordings, pipeline, tmp_path, points):
    (tmp_path / "work").mkdir()
    arguments = [str(points), str(tmp_path / "work" / "out"), "data", "run", str(pipeline), str(recordings)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", KILLED_AT_ANY_WRITE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=600)
    assert done.returncode == 0, done.stderr
    count, killed = map(int, done.stdout.split())
    assert count > 80
    assert killed > points or points > count


def test_what_was_discarded_is_made_again_where_it_is_needed(mtk, recordings, pipeline, tmp_path):
    run = ("data", "run", pipeline, recordings, "-o", tmp_path / "out")
    assert mtk(*run).status == 0
    before = files(tmp_path / "out")
    gone = tmp_path / "out" / "clips" / "b-w001-c002.flac"
    gone.unlink()
    assert mtk(*run).status == 0
    assert files(tmp_path / "out") == before
    soundfile.write(recordings / "more.wav", np.random.default_rng(9).normal(0, 0.1, (RATE * 2, 1)), RATE)
    untouched = gone.stat().st_mtime_ns
    assert mtk(*run).status == 0
    made = files(tmp_path / "out")
    assert "clips/more-w001-c001.flac" in made
    assert not [name for name in made if name.startswith(("ingest/", "loudness/")) and name.endswith(".flac")]
    assert gone.stat().st_mtime_ns == untouched


def test_a_changed_setting_is_refused_before_any_work_and_made_again_when_told(mtk, recordings, pipeline, tmp_path):
    run = ("data", "run", pipeline, recordings, "-o", tmp_path / "out")
    assert mtk(*run).status == 0
    before = files(tmp_path / "out")
    change = ("--set", "loudness.target_lufs=-30")
    refused = mtk(*run, *change)
    assert refused.status == 2
    assert "target_lufs -14.0, not -30.0" in refused.err
    assert files(tmp_path / "out") == before
    assert mtk(*run, *change, "--force").status == 0
    fresh = (*run[:-1], tmp_path / "fresh", *change)
    assert mtk(*fresh).status == 0
    assert files(tmp_path / "out") == files(tmp_path / "fresh")


def test_an_input_that_is_gone_stays_until_told(mtk, recordings, pipeline, tmp_path):
    run = ("data", "run", pipeline, recordings, "-o", tmp_path / "out")
    assert mtk(*run).status == 0
    (recordings / "b.wav").unlink()
    assert "b-w001-c001" in manifest(tmp_path / "out" / "clips") if mtk(*run).status == 0 else False
    assert mtk(*run, "--force").status == 0
    assert [name for name in files(tmp_path / "out") if name.endswith(".flac")] == [
        f"clips/a-w001-c00{clip}.flac" for clip in (1, 2)
    ]


def test_a_recording_that_fails_holds_nothing_up_and_is_tried_again(mtk, recordings, pipeline, tmp_path):
    whole = mtk("data", "run", pipeline, recordings, "-o", tmp_path / "whole")
    assert whole.status == 0
    good = (recordings / "b.wav").read_bytes()
    (recordings / "b.wav").write_bytes(b"RIFF")
    run = ("data", "run", pipeline, recordings, "-o", tmp_path / "out")
    failed = mtk(*run)
    assert failed.status == 1
    assert "failed: b: " in failed.err
    assert list(manifest(tmp_path / "out" / "clips")) == ["a-w001-c001", "a-w001-c002"]
    (recordings / "b.wav").write_bytes(good)
    assert mtk(*run).status == 0
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_what_a_later_stage_failed_at_is_kept_for_another_try(mtk, recordings, pipeline, tmp_path, monkeypatch):
    assert mtk("data", "run", pipeline, recordings, "-o", tmp_path / "whole").status == 0
    make, run = clips.make, ("data", "run", pipeline, recordings, "-o", tmp_path / "out")

    def fails_once(item, *arguments):
        if item.piece == "b":
            raise InputError("not today")
        return make(item, *arguments)

    monkeypatch.setattr(clips, "make", fails_once)
    assert mtk(*run).status == 1
    assert sorted(path.name for path in (tmp_path / "out" / "loudness").glob("*.flac")) == ["b.flac"]
    monkeypatch.setattr(clips, "make", make)
    for stage in (ingest, loudness):
        monkeypatch.setattr(stage, "make", None)
    assert mtk(*run).status == 0
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("[loudnes]", 2, "loudnes"),
        ("[ingest", 2, "TOML"),
        ("[ingest]\nkeep = false", 2, "last stage"),
        ("[ingest]\n[separate]", 4, "Demucs"),
        ("[ingest]\n[windows]\nleast_seconds = 1000", 3, "nothing came out"),
    ],
)
def test_a_pipeline_that_makes_no_sense_is_named(mtk, recordings, tmp_path, monkeypatch, text, status, reason):
    monkeypatch.setitem(sys.modules, "demucs", None)
    monkeypatch.delitem(sys.modules, "demucs.apply", raising=False)
    (tmp_path / "pipeline.toml").write_text(text)
    done = mtk("data", "run", tmp_path / "pipeline.toml", recordings, "-o", tmp_path / "out")
    assert done.status == status
    assert reason in done.err
    assert (tmp_path / "out").exists() is (status == 3)


def test_a_pipeline_says_when_it_has_no_input(mtk, pipeline, tmp_path):
    done = mtk("data", "run", pipeline, "-o", tmp_path / "out")
    assert done.status == 3
    assert "inputs" in done.err


def test_inputs_may_stand_in_the_pipeline(mtk, recordings, pipeline, tmp_path):
    pipeline.write_text(f"inputs = ['{recordings}']\n" + PIPELINE)
    assert mtk("data", "run", pipeline, "-o", tmp_path / "out").status == 0
    assert len(manifest(tmp_path / "out" / "clips")) == 5


@needs_stretcher
def test_codes_are_put_together_for_each_side_and_part(mtk, tmp_path, monkeypatch):
    monkeypatch.setenv("MTK_HOME", str(tmp_path / "home"))
    install_codec(tmp_path / "home")
    folder = tmp_path / "pairs"
    lines = []
    for name in ("x", "y", "z"):
        for part, seed in (("lead", 1), ("backing", 2)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            sound = np.random.default_rng(seed).normal(0, 0.1, (RATE, 1))
            soundfile.write(folder / part / f"{name}.flac", sound, RATE)
            (folder / part / f"{name}.mid").write_bytes(write_midi(Score(Notes.of([0.0], [0.2], [60], [80]))))
        parts = {part: {"file": f"{part}/{name}.flac", "notes": f"{part}/{name}.mid"} for part in ("lead", "backing")}
        lines.append(json.dumps({"name": name, "piece": name, "parts": parts}))
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    (tmp_path / "codes.toml").write_text(
        "[augment]\ntempo = []\n[encode]\n[split]\nfractions = 'train=.6,test=.4'\nseed = 2"
    )
    done = mtk("data", "run", tmp_path / "codes.toml", folder, "-o", tmp_path / "out")
    assert done.status == 0, done.err
    _, parquet = load_pyarrow()
    rows = {}
    for path in sorted((tmp_path / "out" / "split").glob("*.parquet")):
        table = parquet.read_table(path).to_pydict()
        rows[path.stem] = dict(zip(table["item"], table["n"], strict=True))
    assert list(rows) == ["test.backing", "test.lead", "train.backing", "train.lead"]
    for side in ("test", "train"):
        assert rows[f"{side}.lead"] == rows[f"{side}.backing"]
        names = {name.partition("-")[0] for name in rows[f"{side}.lead"]}
        assert len(rows[f"{side}.lead"]) == 3 * len(names)  # all versions of a piece
    assert sum(len(rows[f"{side}.lead"]) for side in ("test", "train")) == 9
    before = files(tmp_path / "out")
    assert mtk("data", "run", tmp_path / "codes.toml", folder, "-o", tmp_path / "out").status == 0
    assert files(tmp_path / "out") == before
