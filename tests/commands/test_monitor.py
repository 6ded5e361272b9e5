"""`mtk monitor`: figures in a table, in JSON, in a picture; runs in any state; errors in a line."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.training.runs import MetricsFile, RunFolder

RECIPE = 'task = "toy"\n[run]\nsteps = 1000\nbest = "onset_f1"\nbest_is = "max"\n[optimiser]\nlearning_rate = 0.001\n'


def append(run: Path, *steps: int, ended: str = "") -> None:
    with MetricsFile(run / "metrics.jsonl") as metrics:
        for step in steps:
            figures = {"loss": 1000 / step, "learning_rate": 0.001, "audio_seconds_per_second": 320.5}
            metrics.append({"step": step, "seconds": step / 5, **figures, "data_wait_share": 0.013})
            if step % 100 == 0:
                metrics.append(
                    {"step": step, "seconds": step / 5 + 1, "valid/onset_f1": round(0.9 - abs(step - 200) / 1000, 6)}
                )
        if ended:
            metrics.end(steps[-1], ended)


@pytest.fixture
def runs(tmp_path):
    """Makes a run of some steps under a name."""

    def make(name: str, *steps: int, rate: float = 0.001, ended: str = "") -> Path:
        run = RunFolder(tmp_path / name)
        run.path.mkdir(parents=True)
        run.recipe.write_text(RECIPE.replace("0.001", str(rate)))
        append(run.path, *steps, ended=ended)
        if steps:
            run.state(steps[-1]).mkdir(parents=True)
        return run.path

    return make


def rows(result) -> dict[str, list[str]]:
    """The cells of a table by the label of their row."""
    head, *lines = result.out.decode().splitlines()
    starts = [index for index in range(len(head)) if head[index] != " " and head[max(0, index - 3) : index].isspace()]
    ends = [*starts[1:], None]
    return {line[: starts[0]].strip(): [line[a:b].strip() for a, b in zip(starts, ends)] for line in [head, *lines]}


FIFTY = range(10, 501, 10)


def test_the_table_says_how_a_run_stands(mtk, runs):
    result = mtk("monitor", runs("a", *FIFTY))
    assert (result.status, result.err) == (0, "")
    found = {label: cells[0] for label, cells in rows(result).items()}
    assert found["state"].startswith("running, last line ")
    assert found["step"] == "500 of 1,000 (50%)"
    assert found["time"] == "1 min 41 s so far, 1 min 40 s left"
    assert found["speed"] == "5 steps/s, 320.5 audio seconds/s"
    assert found["loss"] == "2, -22.2% in 100 steps"
    assert found["best valid/onset_f1"] == "0.9 at step 200, now 0.6"
    assert found["waits for data"] == "1.3% of the time"
    assert found["checkpoint"].startswith("step 500, ")
    assert found[""].startswith("█▄")
    assert found[""].endswith("▁▁▁▁")


def test_several_runs_stand_side_by_side_with_what_differs(mtk, runs):
    result = mtk("monitor", runs("x/a", *FIFTY), runs("x/b", 10, rate=0.01, ended="no gain"), runs("new"))
    found = rows(result)
    assert found[""] != []
    assert result.out.decode().split()[:3] == ["x/a", "x/b", "new"]
    assert [cell.split(",")[0] for cell in found["state"]] == ["running", "ended: no gain", "no step yet"]
    assert found["optimiser.learning_rate"] == ["0.001", "0.01", "0.001"]
    assert found["loss"][1:] == ["100", "-"]
    assert "run.steps" not in found


def test_named_figures_take_the_place_of_the_loss(mtk, runs):
    found = rows(mtk("monitor", runs("a", *FIFTY), "--metric", "valid/*", "--metric", "learning_rate"))
    assert found["valid/onset_f1"][0].startswith("0.6  ")
    assert found["learning_rate"][0].startswith("0.001  ▁▁")
    assert "loss" not in found


def test_a_run_that_has_not_begun_is_one_line(mtk, runs, tmp_path):
    run = runs("new")
    assert mtk("monitor", run).out.decode() == f"{run}: no step yet\n"
    (run / "metrics.jsonl").unlink()
    assert mtk("monitor", run, "--json").status == 0
    assert mtk("monitor", run).out.decode() == f"{run}: no step yet\n"


def test_an_unfinished_line_is_not_there_yet(mtk, runs):
    run = runs("a", *FIFTY)
    before = json.loads(mtk("monitor", run, "--json").out)
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 510, "lo')
    after = json.loads(mtk("monitor", run, "--json").out)
    assert (before["step"], after["step"]) == (500, 500)


def test_json_has_the_newest_figures_a_line_a_run(mtk, runs):
    result = mtk("monitor", runs("a", *FIFTY), runs("b", 10), "--json")
    first, second = (json.loads(line) for line in result.out.splitlines())
    assert (first["step"], first["steps"], first["state"]) == (500, 1000, "running")
    assert first["steps_per_second"] == pytest.approx(5, rel=0.02)
    assert first["best"] == {"name": "valid/onset_f1", "value": 0.9, "step": 200}
    assert first["figures"] == {
        "loss": 2.0,
        "learning_rate": 0.001,
        "audio_seconds_per_second": 320.5,
        "data_wait_share": 0.013,
        "valid/onset_f1": 0.6,
    }
    assert (second["step"], second["best"]) == (10, None)
    named = json.loads(mtk("monitor", first["name"], "--json", "--metric", "loss").out)
    assert named["figures"] == {"loss": 2.0}


def test_a_picture_is_drawn_and_kept(mtk, runs, tmp_path):
    run, picture = runs("a", *FIFTY), tmp_path / "out" / "a.png"
    assert mtk("monitor", run, "--plot", picture).status == 0
    before = picture.read_bytes()
    assert before.startswith(b"\x89PNG")
    again = mtk("monitor", run, "--plot", picture)
    assert (again.status, picture.read_bytes()) == (2, before)
    assert mtk("monitor", run, "--plot", picture, "--metric", "loss", "--force").status == 0
    assert picture.read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("nowhere",), 3, "no such run (nowhere)"),
        (("empty",), 3, "no training run is in the folder (empty)"),
        (("empty", "nowhere"), 3, "there is no run among them"),
        (("bad",), 3, "not a JSON object (bad/metrics.jsonl, line 1)"),
        (("a", "--metric", "valid/onset_f2"), 2, "no such figure: valid/onset_f2 (--metric)"),
        (("a", "--plot", "a.gif"), 2, "no such kind of picture: .gif (--plot a.gif)"),
        (("new", "--plot", "a.png"), 3, "there are no figures to draw yet (new)"),
        (("a", "--plot", "a.png", "--json"), 2, "--watch, --live and --plot exclude one another"),
        (("a", "--plot", "a.png", "--watch"), 2, "--watch, --live and --plot exclude one another"),
        (("a", "--watch"), 2, "--watch needs a terminal"),
        (("a", "--every", "0"), 2, ""),
        ((), 2, ""),
    ],
)
def test_wrong_use_is_one_line_and_a_hint(mtk, runs, tmp_path, monkeypatch, arguments, status, words):
    runs("a", *FIFTY)
    runs("new")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "metrics.jsonl").write_text("what\n")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = mtk("monitor", *arguments)
    assert (result.status, result.out) == (status, b"")
    lines = result.err[result.err.index("mtk: error: ") :].splitlines()
    assert lines[0].startswith(f"mtk: error: {words}")
    assert len(lines) == 2
    assert lines[1].startswith("hint: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_one_of_several_that_is_no_run_is_named_and_the_others_shown(mtk, runs, tmp_path):
    result = mtk("monitor", runs("a", *FIFTY), tmp_path, runs("b", 10), "--json")
    assert result.status == 1
    assert result.err.startswith(f"mtk: failed: {tmp_path}: no training run is in the folder")
    assert len(result.out.splitlines()) == 2


# ----------------------------------------------------------------------------------------------------------- following


class Terminal(io.BytesIO):
    """A screen."""

    def isatty(self) -> bool:
        return True


def test_watching_redraws_until_every_run_has_ended(runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    run = runs("a", 10, 20)
    looks = iter([lambda: append(run, 30, 40), lambda: None, lambda: append(run, 50, ended="done")])
    monkeypatch.setattr(time, "sleep", lambda seconds: next(looks)())
    screen, messages = Terminal(), io.StringIO()
    assert main(["monitor", str(run), "--watch"], Environment(io.BytesIO(), screen, messages)) == 0
    shown = screen.getvalue().decode()
    places = [shown.index(text) for text in ("20 of 1,000", "40 of 1,000", "ended: done", "50 of 1,000")]
    assert places == sorted(places)
    assert messages.getvalue() == ""
    assert next(looks, None) is None


def test_watching_in_json_tells_what_is_new(runs, mtk, monkeypatch):
    first, second = runs("a", 10), runs("b", 10, ended="done")
    looks = iter([lambda: append(first, 20), lambda: None, lambda: append(first, 30, ended="interrupted")])
    monkeypatch.setattr(time, "sleep", lambda seconds: next(looks)())
    lines = [json.loads(line) for line in mtk("monitor", first, second, "--watch", "--json").out.splitlines()]
    assert [(Path(line["name"]).name, line["step"], line["state"]) for line in lines] == [
        ("a", 10, "running"),
        ("b", 10, "ended"),
        ("a", 20, "running"),
        ("a", 30, "ended"),
    ]


def test_a_run_that_goes_away_while_it_is_watched_stays_as_it_was(runs, mtk, monkeypatch):
    run = runs("a", 10)

    def vanish():
        (run / "metrics.jsonl").rename(run.parent / "kept")
        (run / "recipe.toml").rename(run.parent / "recipe")

    def come_back():
        (run.parent / "kept").rename(run / "metrics.jsonl")
        append(run, 20, ended="done")

    looks = iter([vanish, come_back])
    monkeypatch.setattr(time, "sleep", lambda seconds: next(looks)())
    lines = mtk("monitor", run, "--watch", "--json").out.splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10, 20]


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_ends_watching_quietly(runs, name, status):
    command = [sys.executable, "-m", "musictool", "monitor", runs("a", 10), "--watch", "--json", "--every", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert json.loads(process.stdout.readline())["step"] == 10
        process.send_signal(getattr(signal, name))
        assert process.wait(30) == status
        assert process.stderr.read() == b""


def test_a_window_is_drawn_again_and_again_until_it_is_closed(mtk, runs, monkeypatch):
    from musictool.training import run_plots

    run = runs("a", 10)
    seen, waits = [], []

    class Window:
        is_open = True

        def show(self, found, names, metrics):
            seen.append((found[0].training[-1]["step"], names, metrics))
            append(run, seen[-1][0] + 10)

        def wait(self, seconds):
            waits.append(seconds)
            time.sleep(seconds)
            self.is_open = len(seen) < 3

    monkeypatch.setattr(run_plots, "PlotWindow", Window)
    assert mtk("monitor", run, "--live", "--every", "0.15").status == 0
    assert [(step, names) for step, names, _ in seen] == [(step, [str(run)]) for step in (10, 20, 30)]
    assert seen[0][2] == ["loss", "learning_rate"]
    assert max(waits) <= 0.1, "so that a signal is soon heard"


def test_a_signal_closes_the_window(mtk, runs, monkeypatch):
    from musictool.training import run_plots

    class Window:
        is_open = True

        def show(self, *_):
            pass

        def wait(self, seconds):
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:  # a window's callback would lose it
                pytest.fail("the signal came as an exception")

    assert threading.current_thread() is threading.main_thread()
    monkeypatch.setattr(run_plots, "PlotWindow", Window)
    assert mtk("monitor", runs("a", 10), "--live").status == 130


def test_a_window_without_a_display_is_one_line(runs):
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")
    environ = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [sys.executable, "-m", "musictool", "monitor", runs("a", 10), "--live"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 5
    assert done.stderr.splitlines()[0] == "mtk: error: there is no display for a window"
    assert len(done.stderr.splitlines()) == 2


def test_no_torch_is_imported(runs, tmp_path):
    code = (
        "import sys; from musictool.cli.main import main; main(); assert not {'torch', 'accelerate'} & set(sys.modules)"
    )
    for more in ([], ["--plot", tmp_path / "a.png"]):
        subprocess.run([sys.executable, "-c", code, "monitor", runs(f"a{len(more)}", 10), *more], check=True)
