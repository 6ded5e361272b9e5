"""Words as the ids of a subword tokenizer, a file of the `tokenizers` library's that lies beside a model.

Ours are byte-pair encodings over bytes (Sennrich et al., 2016; arXiv:1508.07909), so that there is no text that they
can't read; case does not matter, and no id has a meaning of its own. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from musictool.errors import InputError, MissingError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_NAME = "tokenizer.json"
LEAST_VOCABULARY = 256
"""Ids of a tokenizer that knows single bytes alone."""


class Subwords:
    """A tokenizer.

    Args:
        tokenizer: as the library has it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @property
    def vocabulary(self) -> int:
        """How many ids there are."""
        return int(self._tokenizer.get_vocab_size())

    def ids(self, text: str, most: int) -> list[int]:
        """The first ids of a text; none of an empty one."""
        return list(self._tokenizer.encode(text.strip(), add_special_tokens=False).ids[:most])

    def to_json(self) -> str:
        """What is in its file."""
        return str(self._tokenizer.to_str(pretty=True))


def side_by_side(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids of texts as a batch.

    Args:
        rows: of B texts.

    Returns:
        int64 [B, T] with zeros after them, and which are not padding, bool [B, T].
    """
    longest = max(1, *map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    visible = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
    return ids, visible


def open_subwords(folder: Path) -> Subwords:
    """The tokenizer that lies beside a model.

    Raises:
        InputError: it is not there or damaged.
        MissingError: the library is not installed.
    """
    library = _library()
    path = folder / TOKENIZER_NAME
    hint = "get or train the model again: the tokenizer is a part of it"
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InputError("the model has no tokenizer", context=str(path), hint=hint, code="no-tokenizer") from error
    try:
        return Subwords(library.Tokenizer.from_str(text))
    except Exception as error:  # the library raises nothing more special
        raise InputError("the tokenizer is damaged", context=str(path), hint=hint, code="bad-checkpoint") from error


def train_subwords(texts: Iterable[str], vocabulary: int) -> Subwords:
    """Make a tokenizer for the words of texts; the same texts make the same one.

    Args:
        texts: what it is to read well.
        vocabulary: ids at most, `LEAST_VOCABULARY` or more.

    Raises:
        MissingError: the library is not installed.
    """
    library = _library()
    normalizers, pre_tokenizers = library.normalizers, library.pre_tokenizers
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return Subwords(tokenizer)


def _library() -> ModuleType:
    try:
        import tokenizers
    except ImportError as error:
        hint = "pip install 'musictool[text]'"
        raise MissingError("reading words needs tokenizers", hint=hint, code="missing-dependency") from error
    return tokenizers
