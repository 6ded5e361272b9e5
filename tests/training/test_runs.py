"""A metrics file has whole lines whatever happens to who writes it, and a run's folder tells its checkpoints."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musictool import __version__
from musictool.errors import InputError
from musictool.training.runs import MetricsFile, RunFolder, read_metrics


def written(path: Path, *records: dict) -> Path:
    with MetricsFile(path) as metrics:
        for record in records:
            metrics.append(record)
    return path


def steps(path: Path) -> list[int]:
    return [record["step"] for record in read_metrics(path) if "step" in record]


def test_what_is_appended_is_read_back_line_by_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    records = [{"step": 1, "loss": 0.5, "valid/onset_f1": 0.25}, {"started": "now"}, {"step": 2, "name": "ü\n"}]
    written(path, *records)
    assert read_metrics(path) == records
    assert [json.loads(line) for line in path.read_text().splitlines()] == records


def test_each_line_is_on_the_disk_before_the_next_is_made(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsFile(path) as metrics:
        for step in range(3):
            metrics.append({"step": step})
            assert steps(path) == list(range(step + 1))


def test_figures_that_are_no_numbers_become_null_and_those_of_numpy_plain(tmp_path):
    path = written(tmp_path / "m", {"a": float("nan"), "b": float("inf"), "c": np.float32(0.5), "d": np.int64(3)})
    assert read_metrics(path) == [{"a": None, "b": None, "c": 0.5, "d": 3}]


def test_who_starts_and_ends_is_told(tmp_path):
    with MetricsFile(tmp_path / "m") as metrics:
        metrics.start(processes=2, parameters=5)
        metrics.end(7, "no gain")
    first, last = read_metrics(tmp_path / "m")
    assert (first["mtk"], first["processes"], first["parameters"]) == (__version__, 2, 5)
    assert (last["step"], last["reason"]) == (7, "no gain")
    assert first["started"] <= last["ended"]


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_a_file_cut_anywhere_loses_its_unfinished_line_alone(tmp_path_factory, gaps, cut):
    path = tmp_path_factory.mktemp("cut") / "m"
    records = [{"step": step} for step in np.cumsum(gaps).tolist()]
    whole = written(path, *records).read_bytes()
    path.write_bytes(whole[:cut])
    left = records[: whole[:cut].count(b"\n")]
    assert read_metrics(path) == left, "who reads leaves it out"
    written(path, {"step": 99})
    assert read_metrics(path) == [*left, {"step": 99}], "who goes on cuts it off"


def test_an_unfinished_line_longer_than_a_block_is_cut_off(tmp_path):
    path = written(tmp_path / "m", {"step": 1}, {"text": "x" * 10_000})
    os.truncate(path, path.stat().st_size - 1)
    written(path, {"step": 2})
    assert steps(path) == [1, 2]
    many = written(tmp_path / "many", *({"step": step} for step in range(2000)))
    os.truncate(many, many.stat().st_size - 1)
    written(many, {"step": 2000})
    assert steps(many) == [*range(1999), 2000]
    (tmp_path / "half").write_bytes(b"{" * 10_000)
    written(tmp_path / "half", {"step": 3})
    assert steps(tmp_path / "half") == [3]


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_cutting_keeps_the_lines_up_to_a_step(tmp_path_factory, gaps, step):
    path = tmp_path_factory.mktemp("cut") / "m"
    numbers = np.cumsum(gaps).tolist()
    with MetricsFile(path) as metrics:
        metrics.start(processes=1, parameters=1)
        for number in numbers:
            metrics.append({"step": number})
        metrics.cut_after(step)
        assert steps(path) == [number for number in numbers if number <= step]
        metrics.append({"step": step})
    assert steps(path) == [*(number for number in numbers if number <= step), step]
    assert "started" in read_metrics(path)[0]


def test_cutting_takes_what_was_said_after_the_step_with_it(tmp_path):
    path = tmp_path / "m"
    with MetricsFile(path) as metrics:
        metrics.append({"step": 5})
        metrics.append({"step": 9})
        metrics.start(processes=1, parameters=1)
        metrics.append({"step": 10})
        metrics.cut_after(7)
    assert read_metrics(path) == [{"step": 5}]


@pytest.mark.parametrize("line", ["{", "[1]", "3", "what"])
def test_a_whole_line_that_is_no_record_is_named(tmp_path, line):
    (tmp_path / "m").write_text(f'{{"step": 1}}\n\n{line}\n{{"step": 2}}\n')
    with pytest.raises(InputError, match="m, line 3"):
        read_metrics(tmp_path / "m")


def test_a_full_disk_leaves_no_half_line(tmp_path):
    """A file size limit stands in for it: a part of the line still fits."""
    path = written(tmp_path / "m", {"step": 1})
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with MetricsFile(path) as metrics:
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, limits[1]))
            with pytest.raises(OSError) as caught:
                metrics.append({"step": 2, "text": "x" * 100})
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            assert caught.value.filename == str(path)
            metrics.append({"step": 3})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert steps(path) == [1, 3]


def test_a_killed_writer_leaves_whole_lines(tmp_path):
    code = (
        "import sys, itertools; from pathlib import Path; from musictool.training.runs import MetricsFile\n"
        "metrics = MetricsFile(Path(sys.argv[1]))\n"
        "for step in itertools.count(): metrics.append({'step': step, 'text': 'x' * 500})"
    )
    path = tmp_path / "m"
    with subprocess.Popen([sys.executable, "-c", code, path]) as process:
        while not path.exists() or path.stat().st_size < 100_000:
            assert process.poll() is None
        assert read_metrics(path)[0]["step"] == 0, "it can be read meanwhile"
        process.kill()
    found = steps(path)
    assert found == list(range(len(found)))
    assert len(found) > 100


def test_a_folder_names_its_parts_and_lists_its_checkpoints(tmp_path):
    run = RunFolder(tmp_path)
    assert run.checkpoint_steps() == []
    for step in (1200, 5, 1_234_567_890):
        run.state(step).mkdir(parents=True)
    for name in (".000000007.part", "7", "000000008.old", "notes"):
        (tmp_path / "checkpoints" / name).mkdir()
    assert run.checkpoint_steps() == [5, 1200, 1_234_567_890]
    assert run.checkpoint(1200).relative_to(tmp_path).as_posix() == "checkpoints/000001200"
    assert run.state(5) == run.checkpoint(5) / "training"
    assert [p.name for p in (run.recipe, run.metrics, run.best)] == ["recipe.toml", "metrics.jsonl", "best"]


def test_neither_torch_nor_numpy_is_imported():
    code = "import sys, musictool.training.runs; assert not {'torch', 'numpy', 'rich'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
