"""No bytes make a command crash, hang, eat memory or end in anything but 0, 1 or 3.

Damaged MIDI files go through `mtk tokenize` and `mtk validate`, damaged streams through `mtk decode`, `mtk tokenize`
and `mtk validate`. Streams are damaged three ways: any byte (mostly caught by count, digest and seal), the tokens of an
otherwise sound stream (garbage that must decode), and the meta of its head. Commands run in a process of their own.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.mutate import mutants
from tests.fuzz.test_fuzz_midi import TOKENS, seeds
from tests.peak_memory import peak_memory_bytes

ROOT = Path(__file__).parents[2]
MAX_SECONDS = 5
MAX_MEMORY_BYTES = 1 << 30
STATUSES = {0, 1, 3}
JSON_TOKENS = (
    b'{"t":[1,2,3]}\n',
    b'{"end":1,"n":0,"sha":""}\n',
    b'{"fail":1}\n',
    b'{"w":["NoteOn_60"]}\n',
    b'{"c":[[1]]}\n',
    b"1e999",
    b"-1",
    b"null",
    b"[[[[",
    b'"\xff"',
    b"99999999999999999999",
)
META_VALUES = (0, -1, 1e308, 1e12, 2**31, 2**63, 0.1, "", "x", None, True, [], {}, [[]], [0], [[0, 0]], [[1e300, 1]])


def run(arguments: list[str], stdin: bytes) -> tuple[int, str]:
    from musictool.cli.environment import Environment
    from musictool.cli.main import main

    environment = Environment(io.BytesIO(stdin), io.BytesIO(), io.StringIO())
    return main(arguments, environment), environment.stderr.getvalue()


def stream_of(vocabulary, ids: np.ndarray, meta: dict) -> bytes:
    """An unsealed stream of one item whose count and digest are right."""
    head = {"mtk": 1, "item": "x", "kind": "events", "vocab": vocabulary.name, "vocab_sha": vocabulary.fingerprint}
    end = {"end": 1, "n": len(ids), "sha": hashlib.sha256(ids.astype("<i4").tobytes()).hexdigest()}
    lines = [json.dumps({**head, "meta": meta}), json.dumps({"t": ids.tolist()}), json.dumps(end)]
    return "\n".join([*lines, ""]).encode()


def garbage(count: int, seed: int) -> Iterator[bytes]:
    """Streams that are sound but for what they say."""
    from musictool.symbolic.midi import read_midi
    from musictool.symbolic.schemes import SCHEMES, find_scheme
    from musictool.symbolic.score_meta import meta_of

    rng, chooser = np.random.default_rng(seed), random.Random(seed)
    score = read_midi(ROOT / "examples" / "waltz.mid")
    whole = {name: find_scheme(name).encode(score) for name in SCHEMES}
    for index in range(count):
        vocabulary = find_scheme(chooser.choice(SCHEMES)).vocabulary
        ids, meta = whole[vocabulary.name].copy(), meta_of(score)
        if index % 3 == 0:
            ids = rng.integers(0, len(vocabulary), rng.integers(0, 3000)).astype(np.int32)
        elif index % 3 == 1:
            rng.shuffle(ids[: rng.integers(1, len(ids))])
            ids[rng.random(len(ids)) < 0.02] = rng.integers(0, len(vocabulary))
        else:
            key = chooser.choice([*meta, "tempo", "lyrics", "unheard of"])
            meta[key] = chooser.choice(META_VALUES)
        yield stream_of(vocabulary, ids, meta)


def commands(kind: str, index: int, folder: str) -> list[str]:
    """What to run on the index-th mutant."""
    from musictool.symbolic.schemes import SCHEMES

    scheme = SCHEMES[index % len(SCHEMES)]
    tokenize, validate = ["tokenize", "--scheme", scheme], ["validate", "--json"]
    decode = ["decode", "-o", f"{folder}/", "--force"]
    choices = [tokenize, tokenize, tokenize, validate] if kind == "midi" else [decode, decode, tokenize, validate]
    return choices[index // 3 % 4]


def run_on_mutants(kind: str, count: int, seed: int) -> dict[str, object]:
    """Run commands in this process, under the limits; statuses, the slowest, and what went wrong."""
    resource.setrlimit(resource.RLIMIT_AS, (4 * MAX_MEMORY_BYTES, 4 * MAX_MEMORY_BYTES))
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError()))
    if kind == "midi":
        inputs = mutants(seeds(), count, seed, TOKENS)
    elif kind == "stream":
        files = [*[data for data in seeds() if len(data) < 20_000][:60], (ROOT / "examples/waltz.mid").read_bytes()]
        streams = [_tokenized(data, extra) for data in files for extra in ([], ["--names"], ["--scheme", "remi"])]
        inputs = mutants(streams, count, seed, JSON_TOKENS)
    else:
        inputs = garbage(count, seed)
    statuses: Counter[int] = Counter()
    failures, slowest = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for index, data in enumerate(inputs):
            arguments = commands(kind, index, folder)
            signal.alarm(MAX_SECONDS)
            started = time.perf_counter()
            status, said = run(arguments, data)
            statuses[status] += 1
            slowest = max(slowest, time.perf_counter() - started)
            if status not in STATUSES or "Traceback" in said or (status and not said and "validate" not in arguments):
                failures.append(f"{arguments}: exit {status}: {said[:300]} from {data[:300]!r}")
            if list(Path(folder).rglob("*.part")):
                failures.append(f"{arguments} left a half file")
    signal.alarm(0)
    memory = peak_memory_bytes()
    return {
        "statuses": dict(statuses),
        "failed": len(failures),
        "failures": failures[:8],
        "slowest": slowest,
        "memory": memory,
    }


def _tokenized(data: bytes, extra: list[str]) -> bytes:
    from musictool.cli.environment import Environment
    from musictool.cli.main import main

    environment = Environment(io.BytesIO(data), io.BytesIO(), io.StringIO())
    main(["tokenize", *extra], environment)
    return environment.stdout.getvalue()


def check(kind: str, count: int, seed: int) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.fuzz.test_fuzz_commands", kind, str(count), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + count / 10, cwd=ROOT)
    assert done.returncode == 0, f"the process died: {done.returncode} {done.stderr[-2000:]}"
    result = json.loads(done.stdout)
    assert not result["failed"], result["failures"]
    assert result["slowest"] < MAX_SECONDS
    assert result["memory"] < MAX_MEMORY_BYTES
    assert {"0", "1", "3"} >= result["statuses"].keys()


@pytest.mark.parametrize("kind", ["midi", "stream", "garbage"])
def test_no_mutant_harms_a_command(kind: str) -> None:
    check(kind, 300, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["midi", "stream", "garbage"])
def test_no_mutant_of_many_harms_a_command(kind: str) -> None:
    check(kind, 20_000, seed=1)


if __name__ == "__main__":
    json.dump(run_on_mutants(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), sys.stdout)
