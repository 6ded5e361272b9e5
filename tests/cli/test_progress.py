"""Who hears how far a run is: a terminal sees a bar, a machine reads events, nobody else is told."""

from __future__ import annotations

import io
import json
import re
import sys

import pytest

from musictool.cli.environment import Environment, LogFormat
from musictool.cli.progress import audio_meter, track
from musictool.errors import InputError


def run(environment: Environment) -> list[int]:
    seen = []
    with track([1, 2, 3], environment, label="copy") as items:
        for item in items:
            seen.append(item)
            if item == 2:
                environment.item_failed("[two]", InputError("bad :smile:", context="two.mid"))
    return seen


def test_pipe_sees_failures_and_nothing_else(environment, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)  # an import would fail
    assert run(environment) == [1, 2, 3]
    assert environment.stderr.getvalue() == "mtk: failed: [two]: bad :smile: (two.mid)\n"


def test_machine_reads_start_failure_and_end(environment):
    environment.log_format = LogFormat.JSON
    run(environment)
    start, failed, end = map(json.loads, environment.stderr.getvalue().splitlines())
    assert start == {"level": "info", "event": "start", "label": "copy", "total": 3}
    assert (failed["level"], failed["item"], failed["code"]) == ("failed", "[two]", "invalid-input")
    assert end == {"level": "info", "event": "end", "label": "copy", "total": 3, "done": 3}


def test_end_counts_what_was_done_when_the_run_is_cut_short(environment):
    environment.log_format = LogFormat.JSON
    with pytest.raises(KeyboardInterrupt), track(iter("abc"), environment, label="copy") as items:
        next(items)
        next(items)
        raise KeyboardInterrupt
    end = json.loads(environment.stderr.getvalue().splitlines()[-1])
    assert (end["total"], end["done"]) == (None, 1)


@pytest.mark.parametrize("quiet", [False, True])
def test_terminal_sees_a_bar_and_failures_above_it_unless_quiet(text_terminal, quiet):
    environment = Environment(io.BytesIO(), io.BytesIO(), text_terminal, quiet=quiet)
    write_line = environment.write_line
    assert run(environment) == [1, 2, 3]
    shown = environment.stderr.getvalue()
    assert "mtk: failed: [two]: bad :smile: (two.mid)" in shown
    assert ("3/3" in shown) is not quiet
    assert environment.write_line == write_line


def without_escapes(shown: str) -> str:
    return re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", shown)


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def transcribe(environment: Environment, total_seconds: float | None = None) -> None:
    """Two minutes of sound in eight steps of 1.5 s of work each; a file fails half-way."""
    clock = Clock()
    with audio_meter(environment, label="transcribe", total_seconds=total_seconds, clock=clock) as meter:
        for step in range(8):
            if total_seconds is None and step % 4 == 0:
                meter.extend_total(60)
            clock.now += 1.5
            meter.advance(15)
            if step == 3:
                environment.item_failed("[two]", InputError("bad :smile:", context="two.wav"))


def test_pipe_sees_failures_and_nothing_of_the_meter(environment, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    transcribe(environment)
    assert environment.stderr.getvalue() == "mtk: failed: [two]: bad :smile: (two.wav)\n"


@pytest.mark.parametrize("total_seconds", [120.0, None])
def test_machine_reads_sound_and_speed_at_most_every_five_seconds(environment, total_seconds):
    environment.log_format = LogFormat.JSON
    transcribe(environment, total_seconds)
    start, *between, end = map(json.loads, environment.stderr.getvalue().splitlines())
    assert start == {"level": "info", "event": "start", "label": "transcribe", "total_seconds": total_seconds}
    told = [record for record in between if record["level"] == "info"]
    assert [(record["event"], record["wall_seconds"], record["audio_seconds"]) for record in told] == [
        ("progress", 6.0, 60.0),
        ("progress", 12.0, 120.0),
    ]
    assert [record["total_seconds"] for record in told] == [60.0 if total_seconds is None else 120.0, 120.0]
    assert end == {
        "level": "info",
        "event": "end",
        "label": "transcribe",
        "total_seconds": 120.0,
        "audio_seconds": 120.0,
        "wall_seconds": 12.0,
        "real_time_factor": 0.1,
    }


def test_end_has_no_factor_before_any_sound_and_comes_when_the_run_is_cut_short(environment):
    environment.log_format = LogFormat.JSON
    with pytest.raises(KeyboardInterrupt), audio_meter(environment, label="transcribe", clock=Clock()):
        raise KeyboardInterrupt
    end = json.loads(environment.stderr.getvalue().splitlines()[-1])
    assert (end["event"], end["total_seconds"], end["audio_seconds"], end["real_time_factor"]) == ("end", None, 0, None)


@pytest.mark.parametrize("total_seconds", [120.0, None])
@pytest.mark.parametrize("quiet", [False, True])
def test_terminal_sees_sound_and_speed_and_failures_above_the_bar_unless_quiet(
    text_terminal, quiet, total_seconds, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    environment = Environment(io.BytesIO(), io.BytesIO(), text_terminal, quiet=quiet)
    write_line = environment.write_line
    transcribe(environment, total_seconds)
    shown = without_escapes(environment.stderr.getvalue())
    assert "mtk: failed: [two]: bad :smile: (two.wav)\n" in shown
    assert bool(re.search("transcribe .*2:00/2:00 rtf 0.100 0:00:00", shown)) is not quiet
    assert environment.write_line == write_line


def test_bar_tells_what_remains_by_the_same_clock(text_terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    environment = Environment(io.BytesIO(), io.BytesIO(), text_terminal)
    clock = Clock()
    with audio_meter(environment, label="transcribe", total_seconds=120.0, clock=clock) as meter:
        for _ in range(4):
            clock.now += 1.5
            meter.advance(15)
    assert "1:00/2:00 rtf 0.100 0:00:06" in without_escapes(environment.stderr.getvalue())


def test_bar_tells_the_length_before_any_sound(text_terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    environment = Environment(io.BytesIO(), io.BytesIO(), text_terminal)
    with audio_meter(environment, label="transcribe", total_seconds=120.0, clock=Clock()):
        pass
    assert "0:00/2:00" in without_escapes(environment.stderr.getvalue())


def test_bar_of_unknown_length_tells_what_is_done(text_terminal):
    environment = Environment(io.BytesIO(), io.BytesIO(), text_terminal)
    clock = Clock()
    with audio_meter(environment, label="transcribe", clock=clock) as meter:
        clock.now += 3
        meter.advance(61.9)
    shown = without_escapes(environment.stderr.getvalue())
    assert "1:01 rtf 0.048" in shown
    assert "/" not in shown
