"""Processes that test side by side: one thread each, since more would wait for one another, and signals as anywhere."""

import os
import signal
from collections.abc import Iterator

import pytest

if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored, and so would have all that tests begin
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # workers are begun with it ignored


@pytest.fixture
def own_threads() -> Iterator[None]:
    """Leaves torch as many threads as it had, whatever a test's commands set."""
    import torch  # not before a test needs it

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Gives torch one thread: small models have no work for more, and other tests run beside."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
