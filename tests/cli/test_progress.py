"""Who hears how far a run is: a terminal sees a bar, a machine reads events, nobody else is told."""

from __future__ import annotations

import io
import json
import sys

import pytest

from musictool.cli.environment import Environment, LogFormat
from musictool.cli.progress import track
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
