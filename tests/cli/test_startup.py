"""Start-up is a feature: what `mtk` loads before it works."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from musictool.cli import registry

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "matplotlib",
    "mir_eval",
    "msgpack",
    "numpy",
    "orjson",
    "pydantic",
    "rich",
    "safetensors",
    "scipy",
    "soundfile",
    "symusic",
    "torch",
    "transformers",
}
PROBE = """
import sys
sys.argv[0] = "mtk"
from musictool.cli.main import main
status = main()
sys.stderr.write("\\n".join(sys.modules))
sys.exit(status)
"""


def loaded(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", ["--help", "--version", *(f"{group} --help" for group in registry.GROUPS)])
def test_help_and_version_import_nothing_heavy_and_no_command(arguments):
    modules = loaded(*arguments.split())
    assert modules.isdisjoint(HEAVY)
    assert modules.isdisjoint(entry.module for entry in registry.COMMANDS.values())


@pytest.mark.parametrize("verb", list(registry.COMMANDS))
def test_help_of_a_verb_imports_nothing_heavy_and_no_other_command(verb):
    own = registry.COMMANDS[verb].module
    modules = loaded(*verb.split(), "--help")
    assert own in modules
    assert modules.isdisjoint(HEAVY)
    assert modules.isdisjoint({entry.module for entry in registry.COMMANDS.values()} - {own})


@pytest.mark.skipif(not os.environ.get("MTK_BENCHMARKS"), reason="a timing; set MTK_BENCHMARKS=1 on a quiet machine")
def test_help_takes_at_most_one_and_a_half_times_the_import_of_typer():
    def median_seconds(*command: str) -> float:
        times = []
        for _ in range(25):
            begin = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, capture_output=True, cwd=ROOT)
            times.append(time.perf_counter() - begin)
        return statistics.median(times)

    run = "import sys; from musictool.cli.main import main; sys.exit(main(['--help']))"
    assert median_seconds("-c", run) <= 1.5 * median_seconds("-c", "import typer")
