"""Sound files and what is said of them, out of folders and lists.

A folder, or a sound file, has its captions beside the sound: `x.txt` for `x.flac`, one caption a line. A list,
`x.jsonl`, has an object a line, its path relative to the list's own folder:

    {"audio": "clips/x.flac", "text": "slow blues, tenor saxophone"}
    {"audio": "clips/y.flac", "text": ["bebop", "fast, with brushes"]}

Sound without a caption is left out. Knows nothing of what captions mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

from musictool.errors import InputError
from musictool.training.data.audio_windows import SoundFile, open_sounds

_LIST = ".jsonl"
_HINT = 'an object a line: {"audio": PATH, "text": CAPTION}, or a list of captions'


class Captioned(NamedTuple):
    """A sound file, and what is said of it: one caption or more, none empty."""

    file: SoundFile
    texts: tuple[str, ...]


def open_captions(paths: Sequence[Path]) -> list[Captioned]:
    """Find sound with captions.

    Args:
        paths: folders, sound files and lists.

    Raises:
        InputError: a path is not there, a list is none, sound cannot be read, or nothing has a caption.
    """
    said: dict[Path, tuple[str, ...]] = {}
    for path in paths:
        said.update(_listed(path) if path.suffix.lower() == _LIST else _beside(path))
    if not said:
        hint = "write captions beside the sound, x.txt for x.flac, or name a list, x.jsonl"
        raise InputError("no sound has a caption", context=", ".join(map(str, paths)), hint=hint, code="no-captions")
    return [Captioned(file, said[file.path]) for file in open_sounds(list(said)).files]


def _beside(path: Path) -> Iterable[tuple[Path, tuple[str, ...]]]:
    """The sound files that a path means, with the captions beside them."""
    for file in open_sounds([path]).files:
        try:
            texts = _texts(file.path.with_suffix(".txt").read_text("utf-8").splitlines())
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("cannot read the captions", context=str(file.path.with_suffix(".txt"))) from error
        if texts:
            yield file.path, texts


def _listed(path: Path) -> Iterable[tuple[Path, tuple[str, ...]]]:
    """What a list has."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise InputError(f"cannot open the captions: {reason}", context=str(path)) from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            audio, texts = _entry(line, f"{path}, line {number}")
            if texts:
                yield path.parent / audio, texts


def _entry(line: bytes, where: str) -> tuple[str, tuple[str, ...]]:
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError("no valid JSON", context=where, hint=_HINT, code="bad-captions") from error
    audio = entry.get("audio") if isinstance(entry, dict) else None
    texts = entry.get("text") if isinstance(entry, dict) else None
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(audio, str) or not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError("no sound with a caption", context=where, hint=_HINT, code="bad-captions")
    return audio, _texts(texts)


def _texts(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(line.strip() for line in lines if line.strip())
