"""Inputs of every kind: what a file is, and a report for each item in it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from shutil import copyfileobj
from typing import BinaryIO, cast

from musictool.audio.checks import AUDIO_SUFFIXES, inspect_audio, judge_audio
from musictool.errors import InputError
from musictool.stream.files import STREAM_SUFFIXES, decompressing
from musictool.stream.records import StreamError
from musictool.symbolic.checks import content_digest, judge, score_facts
from musictool.symbolic.corpus import CORPUS_SUFFIX
from musictool.symbolic.midi import inspect_midi, read_midi
from musictool.symbolic.smf import MAX_BYTES
from musictool.validation.corpora import check_corpus
from musictool.validation.reports import Kind, Report, ValidationRules, plain, unreadable
from musictool.validation.streams import check_stream

MIDI_SUFFIXES = (".mid", ".midi", ".kar", ".rmi", ".smf")
KIND_OF_SUFFIX: dict[str, Kind] = {
    **dict.fromkeys(MIDI_SUFFIXES, "midi"),
    **dict.fromkeys(AUDIO_SUFFIXES, "audio"),
    **dict.fromkeys(STREAM_SUFFIXES, "stream"),
    CORPUS_SUFFIX: "corpus",
}

_AUDIO_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"fLaC", b"OggS", b"ID3", b"caff", b".snd", b"riff", b"\xff\xfb")


def check_file(
    name: str, file: Path | BinaryIO, rules: ValidationRules, own_scheme: str | None = None
) -> Iterator[Report]:
    """Check everything in one input.

    Args:
        name: what to call it; items of streams and corpora have names of their own.
        file: where it is, or standard input.
        rules: what it is held against.
        own_scheme: a scheme that streams may be in beside ours, as `miditok:FILE.json`.

    Returns:
        One report an item. Where reading breaks off, the last one has the error.

    Raises:
        MissingError: what reads this kind of file is not installed.
    """
    path = file if isinstance(file, Path) else None
    kind = kind_of(path, b"")
    try:
        if path is None:
            yield from _check_opened(name, cast(BinaryIO, file), None, rules, own_scheme)
        else:
            with open(path, "rb") as opened:
                yield from _check_opened(name, opened, path, rules, own_scheme)
    except OSError as error:
        reason = InputError((error.strerror or "cannot be read").lower(), context=str(path or "standard input"))
        yield unreadable(name, path, kind, reason)
    except InputError as error:
        yield unreadable(name, path, "stream" if isinstance(error, StreamError) else kind, error)


def kind_of(path: Path | None, head: bytes) -> Kind:
    """What a file is, by its name if that is one of ours, else by its first bytes.

    Args:
        path: the file; None is standard input, which is a token stream if nothing says otherwise.
        head: its first bytes, 12 at least if it has them.
    """
    if path is not None:
        for suffix, kind in KIND_OF_SUFFIX.items():
            if path.name.lower().endswith(suffix):
                return kind
    if head.startswith(b"MThd") or (head.startswith(b"RIFF") and head[8:12] == b"RMID"):
        return "midi"
    if head.startswith(b"PAR1"):
        return "corpus"
    if head.startswith(_AUDIO_MAGIC):
        return "audio"
    return "stream" if path is None or head.startswith(b"{") else "unknown"


def _check_opened(
    name: str, raw: BinaryIO, path: Path | None, rules: ValidationRules, own_scheme: str | None
) -> Iterator[Report]:
    context = "standard input" if path is None else str(path)
    with decompressing(raw, context) as opened:
        kind = kind_of(path, opened.peek(12)[:12])
        if kind == "stream":
            yield from check_stream(opened, path, name, rules, own_scheme)
        elif kind == "midi":
            yield check_midi(name, path, opened.read(MAX_BYTES + 1), rules)
        elif kind == "unknown":
            hint = "MIDI files, sound files, token streams (.mtk) and token corpora (.parquet) can be checked"
            raise InputError("no kind of file that is known here", context=context, hint=hint)
        elif path is not None and path.is_file():
            yield from _check_seekable(name, path, path, kind, rules, own_scheme)
        else:
            with tempfile.TemporaryFile() as spool:
                copyfileobj(opened, spool)
                spool.seek(0)
                yield from _check_seekable(name, cast(BinaryIO, spool), path, kind, rules, own_scheme)


def _check_seekable(
    name: str,
    file: Path | BinaryIO,
    path: Path | None,
    kind: Kind,
    rules: ValidationRules,
    own_scheme: str | None,
) -> Iterator[Report]:
    if kind == "audio":
        facts = inspect_audio(file, rules.audio.silence_db)
        content = facts.digest if facts.frames else ""
        yield Report(name, path, kind, plain(facts), tuple(judge_audio(facts, rules.audio)), content)
    else:
        yield from check_corpus(file, path, name, rules, own_scheme)


def check_midi(name: str, path: Path | None, data: bytes, rules: ValidationRules) -> Report:
    """Check a MIDI file."""
    try:
        score = read_midi(data)
        facts = score_facts(score, inspect_midi(data))
    except InputError as error:
        error.context = ", ".join(filter(None, (str(path or "standard input"), error.context)))
        return unreadable(name, path, "midi", error)
    return Report(name, path, "midi", plain(facts), tuple(judge(facts, rules)), content_digest(score.notes))
