"""What `--style`, `--mix` and `--borrow` of `mtk transfer` mean: styles that the model knows, or pieces in files."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from musictool.cli.streams import input_error_from
from musictool.errors import InputError, MusicToolError
from musictool.inference.piano_parts import PianoPart
from musictool.metrics.note_files import MIDI_SUFFIXES, stream_scores
from musictool.stream.files import STREAM_SUFFIXES, decompressing
from musictool.symbolic.midi import read_midi
from musictool.symbolic.tokenization import STREAM_START

if TYPE_CHECKING:
    from musictool.inference.style_transfer import StyleTransfer, Target
    from musictool.symbolic.notes import Score
    from musictool.symbolic.schemes import Scheme


def find_target(
    carrier: StyleTransfer, style: str | None, shares: Mapping[str, float] | None, own: Scheme
) -> tuple[Target, dict[str, Any]]:
    """The style that is asked for.

    Args:
        carrier: knows the styles of its model.
        style: the name of one, or else a MIDI file or a stream file; None where there are shares, or none is asked for.
        shares: names of styles and how much there is of each.
        own: a scheme that is perhaps known only to the caller.

    Returns:
        Where to carry, and what to say of it in an item's `made`.

    Raises:
        InputError: the file cannot be read, or has no note.
        UsageError: the model does not know a style.
    """
    if shares is not None:
        return carrier.style_named(shares), {"mix": dict(shares)}
    if style is None:
        return carrier.no_style(), {}
    if style in carrier.styles or not _means_file(style):
        return carrier.style_named({style: 1.0}), {"style": style}
    with _naming(style):
        data = Path(style).read_bytes()
        target = carrier.style_of(_scores(data, style, own))
    return target, {"style": Path(style).name, "style_sha256": hashlib.sha256(data).hexdigest()}


def find_donors(files: Mapping[str, str], own: Scheme) -> tuple[dict[str, Score], dict[str, Any]]:
    """The pieces that theory is borrowed of.

    Args:
        files: factors, and a MIDI or stream file with one piece for each.
        own: a scheme that is perhaps known only to the caller.

    Returns:
        Factors and pieces, and what to say of them in an item's `made`.

    Raises:
        InputError: a file cannot be read, or has no note or several pieces.
    """
    donors, called = {}, {}
    for factor, file in files.items():
        with _naming(file):
            data = Path(file).read_bytes()
            scores = list(islice(_scores(data, file, own), 2))
            if len(scores) != 1:
                count = "several pieces" if scores else "none"
                raise InputError(f"there is no one piece to borrow {factor} from: it holds {count}")
            if PianoPart.of(scores[0], range(128)) is None:
                raise InputError(f"there is no note to borrow {factor} from", code="no-notes")
            donors[factor] = scores[0]
        called[factor] = {"name": Path(file).name, "sha256": hashlib.sha256(data).hexdigest()}
    return donors, {"borrow": called} if called else {}


@contextmanager
def _naming(file: str) -> Iterator[None]:
    """What goes wrong with a file names it."""
    try:
        yield
    except OSError as error:
        raise input_error_from(error) from error
    except InputError as error:
        if file not in error.context:
            error.context = ", ".join(filter(None, (file, error.context)))
        raise


def _means_file(style: str) -> bool:
    """Whether a style's name is that of a file."""
    return os.sep in style or style.lower().endswith((*MIDI_SUFFIXES, *STREAM_SUFFIXES)) or Path(style).is_file()


def _scores(data: bytes, context: str, own: Scheme) -> Iterator[Score]:
    """The piece in a MIDI file's bytes, or the pieces in those of a stream.

    Raises:
        InputError: one of them cannot be read.
    """
    with decompressing(cast(BinaryIO, io.BytesIO(data)), context) as plain:
        if plain.peek(1)[:1] != STREAM_START:
            yield read_midi(plain.read())
            return
        for name, score in stream_scores(plain, context, own):
            if isinstance(score, MusicToolError):
                raise InputError(score.message, context=f"{context}, item {name!r}", hint=score.hint, code=score.code)
            yield score
