"""Machines with no ffmpeg, and with one that is easily understood."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FAKE_FFMPEG = """#!{python}
import os, struct, sys, time
with open({log!r}, "a") as log:
    print(os.getpid(), *sys.argv[1:], file=log)
data = (sys.stdin.buffer if "pipe:0" in sys.argv else open("/dev/stdin", "rb")).read(16)
if b"BAD" in data:
    sys.exit("[fake @ 0x1] Moov atom not found\\npipe:0: Invalid data found when processing input")
sys.stdout.buffer.write(struct.pack(">4s5I", b".snd", 24, 0xFFFFFFFF, 6, 8000, 1))
while True:
    sys.stdout.buffer.write(struct.pack(">8000f", *(index / 8000 for index in range(8000))))
    if b"ENDLESS" not in data:
        break
if b"HALF" in data:
    print("[fake @ 0x1] File ended prematurely", file=sys.stderr)
"""


@pytest.fixture
def no_ffmpeg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def fake_ffmpeg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A program that takes anything for a second of sound; its log has a line for each run."""
    folder = tmp_path / "programs"
    folder.mkdir()
    log = folder / "log"
    program = folder / "ffmpeg"
    program.write_text(FAKE_FFMPEG.format(python=sys.executable, log=str(log)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return log
