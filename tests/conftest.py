"""Processes that test side by side: one thread each, since more would wait for one another, and Ctrl-C as anywhere."""

import os
import signal

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # workers are begun with it ignored
