"""Work in several processes: the order of results, and what becomes of the workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from musictool.cli.parallel import parallel_map

WORK = r"""
import os, sys, time
from musictool.cli.parallel import parallel_map

def work(task):
    os.write(1, f"{os.getpid()}\n".encode())  # in one piece
    time.sleep(60)

list(parallel_map(work, range(8), 2))
"""


def squared(number: int) -> int:
    return number * number


@pytest.mark.parametrize("jobs", [1, 3])
def test_results_come_in_the_order_of_the_tasks(jobs):
    assert list(parallel_map(squared, iter(range(100)), jobs)) == [number * number for number in range(100)]


def is_running(pid: int) -> bool:
    """Whether a process is there, and not only its exit status."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they end when they next ask for work")
def test_workers_end_with_a_parent_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", WORK], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, workers))
