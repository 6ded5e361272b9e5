"""How a run stands is told from its files alone, whatever state they are in."""

from __future__ import annotations

import io
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musictool.errors import InputError, ResourceError
from musictool.training.monitoring import (
    Curve,
    Figure,
    curve_of,
    read_run,
    recipe_differences,
    sparkline,
    standing_of,
)
from musictool.training.run_plots import PlotWindow, plotted_metrics, save_plot
from musictool.training.runs import MetricsFile, RunFolder

RECIPE = '[run]\nsteps = 1000\nbest = "onset_f1"\nbest_is = "max"\n[optimiser]\nlearning_rate = 0.001\n'


def make_run(path: Path, *records: dict, recipe: str = RECIPE, ended: str = "", age: float = 0.0) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "recipe.toml").write_text(recipe)
    (path / "metrics.jsonl").unlink(missing_ok=True)
    with MetricsFile(path / "metrics.jsonl") as metrics:
        metrics.start(processes=1, parameters=10)
        for record in records:
            metrics.append(record)
        if ended:
            metrics.end(records[-1]["step"], ended)
    os.utime(path / "metrics.jsonl", (time.time() - age,) * 2)
    return path


def lines(count: int, every: int = 10, seconds: float = 2.0, loss=lambda step: 1.0) -> list[dict]:
    return [
        {"step": n * every, "seconds": n * seconds, "loss": loss(n * every), "data_wait_share": 0.1}
        for n in range(1, count + 1)
    ]


def standing(path: Path):
    return standing_of(read_run(path))


# ----------------------------------------------------------------------------------------------------------- standing


def test_figures_of_a_run_under_way(tmp_path):
    for step in (100, 200):
        RunFolder(tmp_path).state(step).mkdir(parents=True)
    evaluations = [
        {"step": step, "seconds": step / 5, "valid/loss": 9.0 - step, "valid/onset_f1": f1}
        for step, f1 in ((100, 0.5), (200, 0.7), (300, 0.6))
    ]
    records = sorted([*lines(40), *evaluations], key=lambda record: record["step"])
    found = standing(make_run(tmp_path, *records))
    assert (found.state, found.step, found.steps, found.seconds) == ("running", 400, 1000, 80.0)
    assert found.steps_per_second == pytest.approx(5)
    assert found.seconds_left == pytest.approx(120)
    assert found.best == Figure("valid/onset_f1", 0.7, 200)
    assert found.last_evaluation == Figure("valid/onset_f1", 0.6, 300)
    assert found.data_wait_share == pytest.approx(0.1)
    assert found.checkpoint_step == 200
    assert 0 <= found.checkpoint_age_seconds < 60
    assert found.figures == {"loss": 1.0, "data_wait_share": 0.1, "valid/loss": -291.0, "valid/onset_f1": 0.6}


def test_the_rate_is_that_of_the_last_lines_with_their_pauses(tmp_path):
    slow_then_fast = [{"step": 10 * n, "seconds": 100.0 * n, "loss": 1.0} for n in range(1, 30)]
    slow_then_fast += [{"step": 290 + 10 * n, "seconds": 2900 + 5.0 * n, "loss": 1.0} for n in range(1, 31)]
    assert standing(make_run(tmp_path, *slow_then_fast)).steps_per_second == pytest.approx(2)


def test_one_line_has_the_rate_that_it_says(tmp_path):
    path = make_run(tmp_path, {"step": 50, "seconds": 90.0, "loss": 1.0, "steps_per_second": 2.5})
    assert standing(path).seconds_left == pytest.approx(950 / 2.5)


@pytest.mark.parametrize("slope", [-0.001, 0.001, 0])
def test_the_loss_is_held_against_that_of_the_lines_before(tmp_path, slope):
    records = lines(40, loss=lambda step: 1 + slope * 10 * (step - 305) if step > 200 else 5.0)
    found = standing(make_run(tmp_path, *records))
    before = 1 + slope * 10 * (55 - 105)
    assert found.loss_change == pytest.approx(slope * 1000 / before, abs=1e-9)
    assert found.loss_change_steps == 100


def test_a_best_that_is_lowest_and_a_recipe_without_a_say(tmp_path):
    records = [{"step": n, "seconds": float(n), "valid/loss": loss} for n, loss in ((1, 3.0), (2, 1.0), (3, 2.0))]
    low = make_run(tmp_path / "low", *records, recipe='[run]\nbest = "loss"\nbest_is = "min"\n')
    none = make_run(tmp_path / "none", *records, recipe="")
    assert standing(low).best == standing(none).best == Figure("valid/loss", 1.0, 2)
    assert standing(none).steps is None
    assert standing(none).seconds_left is None


def test_figures_that_are_no_numbers_are_passed_over_and_told(tmp_path):
    records = lines(6)
    records[2]["loss"] = records[-1]["loss"] = float("nan")
    records.insert(3, {"step": 35, "seconds": 7.0, "valid/onset_f1": 0.5})
    records.append({"step": 60, "seconds": 12.0, "valid/onset_f1": float("nan")})
    found = standing(make_run(tmp_path, *records))
    assert found.loss is None
    assert found.loss_change == 0
    assert found.best == Figure("valid/onset_f1", 0.5, 35)
    assert found.last_evaluation == Figure("valid/onset_f1", None, 60)


@pytest.mark.parametrize(
    ("age", "gap", "state"),
    [(0, 2, "running"), (50, 2, "running"), (70, 2, "silent"), (70, 40, "running"), (90, 40, "silent")],
)
def test_a_run_is_silent_when_lines_stay_out_for_longer_than_ever(tmp_path, age, gap, state):
    records = lines(30)
    for record in records[5:]:
        record["seconds"] += gap - 2  # one long evaluation, a while ago
    found = standing(make_run(tmp_path, *records, age=age))
    assert found.state == state
    assert found.silence_seconds == pytest.approx(age, abs=5)


def test_a_run_that_goes_on_is_measured_by_the_lines_alone(tmp_path):
    late = [{"step": n, "seconds": 10_000.0 + n, "loss": 1.0} for n in range(1, 30)]
    assert standing(make_run(tmp_path, *late, age=100)).state == "silent"


def test_an_end_holds_until_the_run_goes_on(tmp_path):
    path = make_run(tmp_path, *lines(3), ended="no gain", age=10_000)
    assert (standing(path).state, standing(path).reason) == ("ended", "no gain")
    with MetricsFile(path / "metrics.jsonl") as metrics:
        metrics.start(processes=1, parameters=10)
    assert (standing(path).state, standing(path).reason) == ("running", "")


def test_a_run_without_lines_has_not_begun(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    assert standing(tmp_path).state == "no step yet"
    assert standing(make_run(tmp_path)).state == "no step yet"
    assert standing(tmp_path).step == 0


# ------------------------------------------------------------------------------------------------------------ reading


def test_a_run_that_is_being_written_is_read_at_every_byte(tmp_path):
    whole = (make_run(tmp_path, *lines(3), ended="done") / "metrics.jsonl").read_bytes()
    seen = []
    for length in range(len(whole) + 1):
        (tmp_path / "metrics.jsonl").write_bytes(whole[:length])
        found = standing(tmp_path)
        seen.append((found.step, found.state))
    assert list(dict.fromkeys(seen)) == [
        (0, "no step yet"),
        (10, "running"),
        (20, "running"),
        (30, "running"),
        (30, "ended"),
    ]


def test_a_metrics_file_stands_for_its_run_or_for_itself(tmp_path):
    path = make_run(tmp_path / "run", *lines(3))
    assert standing_of(read_run(path / "metrics.jsonl")).steps == 1000
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes((path / "metrics.jsonl").read_bytes())
    found = standing(copy)
    assert (found.step, found.steps, found.checkpoint_step) == (30, None, None)


@pytest.mark.parametrize("name", ["nowhere", "folder", "nowhere/metrics.jsonl"])
def test_no_run_is_an_error_with_a_hint(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError) as caught:
        read_run(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert caught.value.hint


# ------------------------------------------------------------------------------------------------- comparison, curves


def test_recipes_differ_where_a_value_does(tmp_path):
    runs = [
        read_run(make_run(tmp_path / name, recipe=RECIPE.replace("0.001", rate) + more))
        for name, rate, more in (("a", "0.001", ""), ("b", "0.01", "betas = [0.9, 0.99]\n"))
    ]
    assert recipe_differences(runs) == {
        "optimiser.learning_rate": [0.001, 0.01],
        "optimiser.betas": [None, [0.9, 0.99]],
    }
    assert recipe_differences([runs[0], runs[0]]) == {}
    bare = read_run(make_run(tmp_path / "c", recipe=""))
    assert recipe_differences([runs[0], bare]) == {}
    assert recipe_differences([bare, *runs])["optimiser.learning_rate"] == [None, 0.001, 0.01]


def test_a_curve_has_the_points_of_its_figure(tmp_path):
    run = read_run(
        make_run(tmp_path, {"step": 1, "loss": 3.0}, {"step": 2, "other": 1}, {"step": 4, "loss": float("nan")})
    )
    curve = curve_of(run, "loss")
    assert curve.steps == [1, 4]
    assert curve.values[0] == 3.0
    assert math.isnan(curve.values[1])
    assert curve_of(run, "nothing") == Curve([], [])


@given(st.lists(st.floats(-1e6, 1e6), max_size=40), st.integers(0, 50))
def test_smoothing_is_the_mean_of_the_neighbours(values, reach):
    smooth = Curve(list(range(len(values))), values).smoothed(reach)
    expected = [
        math.fsum(part) / len(part) for part in (values[max(0, n - reach) : n + reach + 1] for n in range(len(values)))
    ]
    assert smooth == pytest.approx(expected, abs=1e-6)


def test_smoothing_leaves_out_what_is_no_number():
    nan = float("nan")
    assert Curve([1, 2, 3], [1.0, nan, 3.0]).smoothed(1) == [1.0, 2.0, 3.0]
    assert all(math.isnan(value) for value in Curve([1], [nan]).smoothed(3))


def test_a_sparkline_shows_high_and_low():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline(range(800), 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([5, 5], 8) == "▁▁"
    assert sparkline([0, float("nan"), 7], 8) == "▁ █"
    assert sparkline([], 8) == ""


# -------------------------------------------------------------------------------------------------------------- plots


def two_runs(folder: Path):
    figures = [{"step": n * 100, "seconds": n * 20.0, "valid/onset_f1": n / 10, "valid/loss": 1.0} for n in range(1, 4)]
    return [read_run(make_run(folder / name, *lines(200), *figures)) for name in ("a", "b")]


def test_loss_rate_norm_and_the_evaluations_are_drawn(tmp_path):
    extra = {"step": 1, "loss": 1.0, "loss/onset": 2.0, "gradient_norm": 1.0, "learning_rate": 0.1, "valid/z": 1.0}
    run = read_run(make_run(tmp_path, extra, {"step": 2, "valid/loss": 1.0, "valid/onset_f1": 0.5}))
    assert plotted_metrics([run]) == [
        "loss",
        "learning_rate",
        "gradient_norm",
        "valid/onset_f1",
        "valid/z",
        "valid/loss",
    ]


@pytest.mark.parametrize(("form", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_same_runs_give_the_same_picture(tmp_path, form, magic):
    pictures = []
    for _ in range(2):
        file = io.BytesIO()
        save_plot(file, two_runs(tmp_path), ["$a_1$", "b"], ["loss", "valid/onset_f1"], form)
        pictures.append(file.getvalue())
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(magic)


def test_a_panel_holds_every_run_raw_and_smoothed(tmp_path):
    from matplotlib.figure import Figure as Canvas

    from musictool.training.run_plots import draw_runs

    figure = Canvas()
    draw_runs(figure, two_runs(tmp_path), ["$a_1$", "b"], ["loss", "valid/onset_f1"])
    loss, evaluation = figure.axes
    assert [len(line.get_xdata()) for line in loss.get_lines()] == [200] * 4
    assert [line.get_alpha() for line in loss.get_lines()] == [0.3, None] * 2
    assert [len(line.get_xdata()) for line in evaluation.get_lines()] == [3, 3]
    assert [(text.get_text(), text.get_parse_math()) for text in loss.get_legend().get_texts()] == [
        ("$a_1$", False),
        ("b", False),
    ]
    draw_runs(figure, two_runs(tmp_path), ["a", "b"], ["loss"])
    assert len(figure.axes) == 1, "what was drawn before is gone"


def test_a_loss_that_falls_far_is_drawn_on_a_logarithmic_scale(tmp_path):
    from matplotlib.figure import Figure as Canvas

    from musictool.training.run_plots import draw_runs

    scales = []
    for end in (0.5, 0.001):
        figure = Canvas()
        records = lines(3, loss=lambda step, end=end: 1.0 if step < 30 else end)
        draw_runs(figure, [read_run(make_run(tmp_path / str(end), *records))], ["a"], ["loss"])
        scales.append(figure.axes[0].get_yscale())
    assert scales == ["linear", "log"]


def test_a_toolkit_that_is_not_there_is_named(monkeypatch):
    from matplotlib import pyplot

    def figure(*_, **__):
        raise ImportError("Cannot load backend 'QtAgg'\nand so on")

    monkeypatch.setattr(pyplot, "figure", figure)
    with pytest.raises(ResourceError, match=r"no window can be opened \(Cannot load backend 'QtAgg'\)$"):
        PlotWindow()


@pytest.mark.parametrize("backend", ["", "agg"])
def test_without_a_display_no_window_is_promised(backend):
    code = (
        "from musictool.errors import ResourceError\nfrom musictool.training.run_plots import PlotWindow\n"
        "try: PlotWindow()\nexcept ResourceError as error: assert error.code == 'no-display' and error.hint\n"
        "else: raise SystemExit(1)"
    )
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")
    environ = {name: value for name, value in os.environ.items() if name not in hidden}
    if backend:
        environ["MPLBACKEND"] = backend
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_window_draws_waits_and_knows_when_it_is_closed(tmp_path, monkeypatch):
    from matplotlib import pyplot
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    waited, open_windows = [], {1}

    class Figured(Canvas):
        number = 1

        def show(self):
            pass

    class Window(FigureCanvasAgg):
        required_interactive_framework = "a screen"

        def start_event_loop(self, timeout=0):
            waited.append(timeout)

    figure = Figured()
    Window(figure)
    monkeypatch.setattr(pyplot, "figure", lambda *_, **__: figure)
    monkeypatch.setattr(pyplot, "fignum_exists", open_windows.__contains__)
    window = PlotWindow()
    window.show(two_runs(tmp_path), ["a", "b"], ["loss"])
    window.wait(0.25)
    assert (window.is_open, waited, len(figure.axes)) == (True, [0.25], 1)
    open_windows.clear()
    assert not window.is_open


def test_no_torch_is_imported():
    code = "import sys, musictool.training.monitoring, musictool.training.run_plots; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
