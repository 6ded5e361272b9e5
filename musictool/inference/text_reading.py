"""Text to ids, by the tokenizer that stands beside a model: that of the `tokenizers` library, or SentencePiece's.

Both end a text with the id that its model knows the end by. Knows no model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from musictool.checkpoints.native import TOKENIZER_NAMES
from musictool.errors import InputError, MissingError

_EXTRA = "pip install 'musictool[text]'"


class TextIds(NamedTuple):
    """A text as ids, and whether its end is not among them."""

    ids: list[int]
    is_cut: bool


class TextReader:
    """Reads text.

    Args:
        encode: all ids of a text, the one of its end among them.
        ids_max: the most that are given.
    """

    def __init__(self, encode: Callable[[str], list[int]], ids_max: int) -> None:
        self._encode = encode
        self._ids_max = ids_max

    def read(self, text: str) -> TextIds:
        """The ids of a text; of one that is too long the first ones and the end. Blank text has none."""
        if not text.strip():
            return TextIds([], False)
        ids = self._encode(text)
        if len(ids) <= self._ids_max:
            return TextIds(ids, False)
        return TextIds([*ids[: self._ids_max - 1], ids[-1]], True)


def open_text_reader(folder: Path, ids_max: int) -> TextReader:
    """The tokenizer in a model's folder.

    Args:
        folder: the model's.
        ids_max: the most ids of a text, one at least.

    Raises:
        MissingError: there is none, or the package that reads it is not installed.
        InputError: it is damaged.
    """
    json_path, model_path = (folder / name for name in TOKENIZER_NAMES)
    if json_path.is_file():
        return TextReader(_open_tokenizers(json_path), ids_max)
    if model_path.is_file():
        return TextReader(_open_sentencepiece(model_path), ids_max)
    raise MissingError(
        "the model reads text, and its tokenizer is not here",
        context=str(folder),
        hint=f"import the model from a folder that has {' or '.join(TOKENIZER_NAMES)}, or copy that file there",
        code="missing-tokenizer",
    )


def _open_tokenizers(path: Path) -> Callable[[str], list[int]]:
    try:
        import tokenizers
    except ImportError as error:
        raise _missing("tokenizers", path) from error
    try:
        tokenizer = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise
    except Exception as error:  # the library raises nothing more precise
        raise _damaged(path, error) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text).ids
        return ids

    return encode


def _open_sentencepiece(path: Path) -> Callable[[str], list[int]]:
    try:
        import sentencepiece
    except ImportError as error:
        raise _missing("sentencepiece", path) from error
    try:
        processor: Any = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes(), add_eos=True)
    except RuntimeError as error:
        raise _damaged(path, error) from error

    def encode(text: str) -> list[int]:
        ids: list[int] = processor.encode(text)
        return ids

    return encode


def _missing(package: str, path: Path) -> MissingError:
    message = f"text is read by the package '{package}'"
    return MissingError(message, context=str(path), hint=_EXTRA, code="missing-dependency")


def _damaged(path: Path, error: Exception) -> InputError:
    reason = next(iter(str(error).splitlines()), "")
    return InputError(f"no tokenizer: {reason}", context=str(path), code="bad-tokenizer")
