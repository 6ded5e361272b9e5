"""No bytes make the MIDI reader crash, hang, eat memory or raise anything but `InputError`.

The mutants are read in a process of their own under a memory limit, so that a crash below Python is a failed test.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fuzz.mutate import mutants
from tests.peak_memory import peak_memory_bytes

ROOT = Path(__file__).parents[2]
MAX_SECONDS = 5
MAX_MEMORY_BYTES = 1 << 30
CORPUS_SEEDS = 200
TOKENS = (
    b"MTrk",
    b"MThd\0\0\0\x06",
    b"\xff\xff\xff\x7f",
    b"\xff\x2f\x00",
    b"\xff\x01\xff\xff\xff\x7f",
    b"\xf0\xff\xff\xff\x7f",
    b"\xf7\x05",
    b"\xff\x51\x00",
    b"\xff\x51\x03\x00\x00\x00",
    b"\xff\x58\x01\x04",
    b"\xff\x58\x04\x01\x20\x18\x08",
    b"\xff\x59\x02\x70\x05",
    b"\xff\x05\x04\x83\x65\x83\x58",
    b"\xff\x03\x03\xe9\xff\x80",
    b"\xc0\x05\x00\xb0\x40\x7f",
)


def seeds() -> list[bytes]:
    """Hand-made files, and where `$MTK_TEST_DATA` is set, some of every corpus there."""
    event_lists = (
        b"\0\x90\x3c\x40\x60\x3c\0\0\xff\x2f\0",
        b"\0\xff\x03\x05Piano\0\xb0\x40\x7f\x83\x60\x90\x3c\x40\x81\x00\x80\x3c\x40\x00\xb0\x40\x00\0\xff\x2f\0",
        b"\0\xff\x51\x03\x07\xa1\x20\0\xff\x58\x04\x03\x02\x18\x08\0\xff\x59\x02\xfd\x01\x60\xff\x51\x03\x09\0\0\0\xff\x2f\0",
        b"\0\xf0\x05\x7e\x7f\x09\x01\xf7\0\x99\x24\x64\x10\x24\0\0\xc1\x05\0\x91\x40\x40\x20\x40\0\0\xff\x05\x02la\0\xff\x2f\0",
    )
    tracks = [b"MTrk" + len(events).to_bytes(4, "big") + events for events in event_lists]
    files = [
        b"MThd\0\0\0\x06\0" + bytes([kind, 0, len(tracks)]) + division + b"".join(tracks)
        for kind in (0, 1, 2)
        for division in (b"\x01\xe0", b"\xe7\x28")
    ]
    riff = b"RIFF" + (len(files[0]) + 12).to_bytes(4, "little") + b"RMIDdata" + len(files[0]).to_bytes(4, "little")
    files.append(riff + files[0])
    corpora = os.environ.get("MTK_TEST_DATA")
    if corpora:
        for corpus in sorted(path for path in Path(corpora).iterdir() if path.is_dir()):
            paths = sorted(path for path in corpus.rglob("*.mid") if path.stat().st_size < 40_000)
            chosen = random.Random(0).sample(paths, min(CORPUS_SEEDS // 4, len(paths)))
            files += [path.read_bytes() for path in chosen]
    return files


def read_mutants(count: int, seed: int) -> dict[str, object]:
    """Read mutants in this process, under the limits; counts, the slowest, and what went wrong."""
    from musictool.errors import InputError
    from musictool.symbolic.midi import inspect_midi, read_midi, write_midi

    resource.setrlimit(resource.RLIMIT_AS, (4 * MAX_MEMORY_BYTES, 4 * MAX_MEMORY_BYTES))
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError()))
    failures, read, slowest = [], 0, 0.0
    for mutant in mutants(seeds(), count, seed, TOKENS):
        signal.alarm(MAX_SECONDS)
        started = time.perf_counter()
        try:
            score = read_midi(mutant)
            read_midi(write_midi(score))
            inspect_midi(mutant)
            read += 1
        except InputError:
            pass
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error} from {mutant[:400].hex()}")
        slowest = max(slowest, time.perf_counter() - started)
    signal.alarm(0)
    memory = peak_memory_bytes()
    return {"read": read, "failures": failures[:5], "failed": len(failures), "slowest": slowest, "memory": memory}


def check_mutants(count: int, seed: int) -> dict[str, object]:
    command = [sys.executable, "-W", "error", "-m", "tests.fuzz.test_fuzz_midi", str(count), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + count / 20, cwd=ROOT)
    assert done.returncode == 0, f"the reader died: {done.returncode} {done.stderr[-2000:]}"
    result = json.loads(done.stdout)
    assert not result["failed"], result["failures"]
    assert result["slowest"] < MAX_SECONDS
    assert result["memory"] < MAX_MEMORY_BYTES
    return result


def test_no_mutant_harms_the_reader() -> None:
    result = check_mutants(400, seed=0)
    assert result["read"], "every mutant was refused: the damage is too heavy to test anything"


@pytest.mark.slow
def test_no_mutant_of_many_harms_the_reader() -> None:
    check_mutants(20_000, seed=1)


if __name__ == "__main__":
    json.dump(read_mutants(int(sys.argv[1]), int(sys.argv[2])), sys.stdout)
