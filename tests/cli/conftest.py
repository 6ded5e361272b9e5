"""A shell with fake commands and streams of its own, in this process or in another one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from musictool.cli import registry
from musictool.cli.environment import Environment
from musictool.cli.main import main

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FAKES = ("copy", "fail", "findings", "pour", "linger", "warn", "end_by", "swallow", "use")
KIT = ("copy", "fail", "findings")
PROGRAM = f"""
import sys
from musictool.cli import registry
registry.COMMANDS |= {{name: registry.CommandEntry("fake_commands", name, "Fake.") for name in {FAKES}}}
from musictool.cli.main import main
if __name__ == "__main__":
    sys.exit(main())
"""


class Terminal(io.BytesIO):
    """Bytes on a screen."""

    def isatty(self) -> bool:
        return True


class TextTerminal(io.StringIO):
    """Text on a screen."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


@pytest.fixture
def text_terminal() -> TextTerminal:
    return TextTerminal()


@pytest.fixture(autouse=True)
def fake_commands(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put fake verbs and a group of them beside the real ones; a test may change the registry as it likes."""
    monkeypatch.syspath_prepend(HERE)
    real = dict(registry.COMMANDS), dict(registry.GROUPS)
    for name in FAKES:
        registry.COMMANDS[name] = registry.CommandEntry("fake_commands", name, f"Fake {name}.")
    for name in KIT:
        registry.COMMANDS[f"kit {name}"] = registry.CommandEntry(
            "fake_commands", name, f"Fake {name} of a kit.", "KIT_EXAMPLES"
        )
    registry.GROUPS["kit"] = registry.GroupEntry("A kit of fakes.", ("mtk kit copy a.txt", "mtk kit fail plain"))
    yield
    for table, saved in zip((registry.COMMANDS, registry.GROUPS), real, strict=True):
        table.clear()
        table.update(saved)


@pytest.fixture
def environment() -> Environment:
    return Environment(io.BytesIO(), io.BytesIO(), io.StringIO())


@pytest.fixture
def mtk(environment: Environment) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process: status, standard output, standard error."""

    def run(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        environment.stdin, environment.stdout, environment.stderr = io.BytesIO(stdin), io.BytesIO(), io.StringIO()
        environment.quiet = environment.debug = False
        environment.log_format = type(environment.log_format)("text")
        status = main(arguments, environment)
        return status, environment.stdout.getvalue().decode(), environment.stderr.getvalue()

    return run


@pytest.fixture
def spawn(tmp_path: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Start a command line in a process of its own, warnings as errors."""
    program = tmp_path / "mtk-with-fakes.py"
    program.write_text(PROGRAM)

    def start(*arguments: str, python: tuple[str, ...] = ("-W", "error"), **options: object) -> subprocess.Popen[bytes]:
        path = os.pathsep.join((str(ROOT), str(HERE)))
        environ = {**os.environ, "PYTHONPATH": path, "PYTHONDEVMODE": "1"}
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [sys.executable, *python, str(program), *arguments], **{"env": environ, **streams, **options}
        )

    return start
