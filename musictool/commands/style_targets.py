"""What `--style` and `--mix` of `mtk transfer` mean: a style that the model knows, or that of the pieces in a file."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from musictool.cli.streams import input_error_from
from musictool.errors import InputError, MusicToolError
from musictool.metrics.note_files import MIDI_SUFFIXES, stream_scores
from musictool.stream.files import STREAM_SUFFIXES, decompressing
from musictool.symbolic.midi import read_midi
from musictool.symbolic.tokenization import STREAM_START

if TYPE_CHECKING:
    from musictool.inference.style_transfer import Style, StyleTransfer
    from musictool.symbolic.notes import Score
    from musictool.symbolic.schemes import Scheme


def find_target(
    carrier: StyleTransfer, style: str | None, shares: Mapping[str, float] | None, own: Scheme
) -> tuple[Style, dict[str, Any]]:
    """The style that is asked for.

    Args:
        carrier: knows the styles of its model.
        style: the name of one, or else a MIDI file or a stream file; None where there are shares.
        shares: names of styles and how much there is of each.
        own: a scheme that is perhaps known only to the caller.

    Returns:
        The style, and what to say of it in an item's `made`.

    Raises:
        InputError: the file cannot be read, or has no note.
        UsageError: the model does not know a style.
    """
    if shares is not None:
        return carrier.style_named(shares), {"mix": dict(shares)}
    assert style is not None
    if style in carrier.styles or not _means_file(style):
        return carrier.style_named({style: 1.0}), {"style": style}
    path = Path(style)
    try:
        data = path.read_bytes()
        target = carrier.style_of(_scores(data, style, own))
    except OSError as error:
        raise input_error_from(error) from error
    except InputError as error:
        if style not in error.context:
            error.context = ", ".join(filter(None, (style, error.context)))
        raise
    return target, {"style": path.name, "style_sha256": hashlib.sha256(data).hexdigest()}


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
