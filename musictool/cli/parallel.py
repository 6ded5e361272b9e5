"""Work on many items in several processes, results in the order of the items, in bounded memory.

Knows nothing of what the work is: a function and its tasks go out, results come back.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from musictool.errors import ResourceError

if TYPE_CHECKING:
    from concurrent.futures import Future

Task = TypeVar("Task")
Result = TypeVar("Result")

BATCHES_A_WORKER = 8
BATCH_MAX = 16
BATCHES_AHEAD = 3
_PR_SET_PDEATHSIG = 1


def worker_count(jobs: int) -> int:
    """How many processes `--jobs` means: 0 is one for each core that this process may use."""
    if jobs:
        return jobs
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_one_thread() -> None:
    """Keep numpy's BLAS, not yet imported, from starting a thread for each core: none of this work multiplies matrices.

    It makes the import faster and forking safe. A user's own setting stays.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def parallel_map(function: Callable[[Task], Result], tasks: Iterable[Task], jobs: int) -> Iterator[Result]:
    """Apply a function to every task.

    Args:
        function: a module's function; with more than one process it and its results are pickled.
        tasks: what it is applied to; taken only a little ahead of the work.
        jobs: processes; 1 works in this one, 0 uses every core.

    Returns:
        The results in the order of the tasks; only a few batches are worked on ahead of what is taken.

    Raises:
        ResourceError: a process was killed, for want of memory say.
    """
    workers = worker_count(jobs)
    size = 1
    if isinstance(tasks, Sized):
        workers = min(workers, len(tasks))
        size = max(1, min(BATCH_MAX, len(tasks) // (max(workers, 1) * BATCHES_A_WORKER)))
    if workers <= 1:
        yield from map(function, tasks)
        return
    import multiprocessing  # these cost 25 ms that one process need not pay
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    stream = iter(tasks)
    batches = iter(lambda: list(islice(stream, size)), [])
    # Forked workers share what is imported already; elsewhere they start afresh.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_the_parent)
    pending: deque[Future[list[Result]]] = deque()
    try:
        for batch in batches:
            pending.append(pool.submit(_apply, function, batch))
            if len(pending) >= workers * BATCHES_AHEAD:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool as error:
        raise ResourceError(
            "a worker process was killed", hint="it may have been out of memory: use fewer --jobs"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _apply(function: Callable[[Task], Result], batch: Sequence[Task]) -> list[Result]:
    return [function(task) for task in batch]


def _follow_the_parent() -> None:
    """Leave a Ctrl-C, which reaches every process of the terminal, to the parent, and end when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
