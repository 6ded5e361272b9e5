"""Commands run in this process on streams of their own, and small MIDI files to run them on."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from musictool.cli.environment import Environment
from musictool.cli.main import main

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    status: int
    out: bytes
    err: str


@pytest.fixture
def mtk() -> Callable[..., Result]:
    """Run `mtk ARGUMENT…` with bytes on standard input."""

    def run(*arguments: object, stdin: bytes = b"") -> Result:
        environment = Environment(io.BytesIO(stdin), io.BytesIO(), io.StringIO())
        status = main([str(argument) for argument in arguments], environment)
        return Result(status, environment.stdout.getvalue(), environment.stderr.getvalue())

    return run


@pytest.fixture
def waltz() -> Path:
    """The example clip."""
    return EXAMPLES / "waltz.mid"


@pytest.fixture
def folder(tmp_path: Path, waltz: Path) -> Path:
    """Two good files and a bad one between them."""
    folder = tmp_path / "midi"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.mid").write_bytes(waltz.read_bytes())
    (folder / "b.mid").write_bytes(b"MThd, but no more of it")
    (folder / "inner" / "c.mid").write_bytes(waltz.read_bytes())
    return folder
