"""What models of codes are told beside the codes, in training: a backing, words, or the style that words tell of.

Each kind says what of a piece it takes, how a batch of that looks, and what the model makes of it. What is told of one
example in so many is nothing, so that the model can do without, and guidance has something to lead away from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from musictool.checkpoints.store import Store
from musictool.errors import UsageError
from musictool.inference.style_reading import open_style_reader
from musictool.inference.subwords import side_by_side
from musictool.inference.text_reading import open_text_reader
from musictool.training.data.code_sets import CodePiece

TEXT_IDS_MAX = 512


class Telling(Protocol):
    """One kind of condition."""

    def prepare(self, pieces: Iterable[CodePiece], store: Store, folder: Path | None) -> None:
        """Make ready whatever takes other models, once, before examples are made.

        Args:
            pieces: all of them.
            store: where models are.
            folder: of the model that training begins with; None for fresh weights.

        Raises:
            MissingError: what is needed is not here.
            UsageError: the model cannot be told what there is.
        """
        ...

    def of(self, piece: CodePiece) -> Any:
        """What is told of a stretch of a piece."""
        ...

    def nothing(self) -> Any:
        """What is told where nothing is."""
        ...

    def collate(self, told: Sequence[Any]) -> dict[str, Tensor]:
        """A batch of B of these."""
        ...

    def conditions(self, model: Any, batch: Mapping[str, Tensor]) -> Any:
        """What the model takes for them, on its device."""
        ...


class Backings:
    """Codes that sound at the same time, as SaxGPT reads them.

    Args:
        config: of the model.
    """

    def __init__(self, config: Any) -> None:
        self._codebooks = config.codebooks
        self._special_id = config.special_id

    def prepare(self, pieces: Iterable[CodePiece], store: Store, folder: Path | None) -> None:
        """See that there is a backing.

        Raises:
            UsageError: there is none for any piece.
        """
        if all(piece.backing is None for piece in pieces):
            hint = "name train.lead.parquet, say, with train.backing.parquet beside it: mtk data run makes both"
            raise UsageError("the model plays over a backing, and no piece has one", context="data", hint=hint)

    def of(self, piece: CodePiece) -> Any:
        """int16 [K, F]."""
        return self.nothing() if piece.backing is None else piece.backing

    def nothing(self) -> Any:
        """int16 [K, 0]."""
        return np.zeros((self._codebooks, 0), np.int16)

    def collate(self, told: Sequence[Any]) -> dict[str, Tensor]:
        """backing: int64 [B, K, F], special ids where it has ended."""
        frames = max(codes.shape[1] for codes in told)
        backing = torch.full((len(told), self._codebooks, frames), self._special_id)
        for row, codes in zip(backing, told, strict=True):
            row[:, : codes.shape[1]] = torch.from_numpy(codes)
        return {"backing": backing}

    def conditions(self, model: Any, batch: Mapping[str, Tensor]) -> Any:
        return batch["backing"]


class Texts:
    """Words, as MusicGen's text encoder reads them.

    Args:
        config: of the model.
    """

    def __init__(self, config: Any) -> None:
        self._ids: dict[str, list[int]] = {"": []}

    def prepare(self, pieces: Iterable[CodePiece], store: Store, folder: Path | None) -> None:
        """Read all words.

        Raises:
            MissingError: there is no tokenizer beside the model.
            UsageError: there is no model to begin with, and so no tokenizer.
        """
        texts = sorted({text for piece in pieces for text in piece.texts} - self._ids.keys())
        if not texts:
            return
        if folder is None:
            hint = "begin with a model that has one beside it: model.from"
            raise UsageError("words need a tokenizer, and fresh weights come without", context="model", hint=hint)
        reader = open_text_reader(folder, TEXT_IDS_MAX)
        self._ids |= {text: reader.read(text).ids for text in texts}

    def of(self, piece: CodePiece) -> Any:
        """Ids."""
        return self._ids[piece.text]

    def nothing(self) -> Any:
        return []

    def collate(self, told: Sequence[Any]) -> dict[str, Tensor]:
        """text: int64 [B, S]; text_visible: bool [B, S], False at padding."""
        ids, visible = side_by_side(told)
        return {"text": ids, "text_visible": visible}

    def conditions(self, model: Any, batch: Mapping[str, Tensor]) -> Any:
        return model.encode_text(batch["text"], batch["text_visible"])


class Styles:
    """The vectors that a style encoder makes of words, as PersonalJazz takes them.

    Args:
        config: of the model.
    """

    def __init__(self, config: Any) -> None:
        self._encoder = config.style_encoder
        self._styles: dict[str, Tensor] = {"": torch.zeros(config.style_width)}

    def prepare(self, pieces: Iterable[CodePiece], store: Store, folder: Path | None) -> None:
        """Encode all words.

        Raises:
            MissingError: the style encoder is not here.
            UsageError: the model has none.
        """
        texts = sorted({text for piece in pieces for text in piece.texts} - self._styles.keys())
        if not texts:
            return
        if not self._encoder:
            hint = "model.style_encoder names one, or leave the words out"
            raise UsageError("words are read by a style encoder, and the model names none", context="model", hint=hint)
        reader = open_style_reader(self._encoder, store=store, device="cpu")
        self._styles |= {text: reader.of_text(text) for text in texts}

    def of(self, piece: CodePiece) -> Any:
        """float32 [S]."""
        return self._styles[piece.text]

    def nothing(self) -> Any:
        return self._styles[""]

    def collate(self, told: Sequence[Any]) -> dict[str, Tensor]:
        """style: float32 [B, S]."""
        return {"style": torch.stack(list(told))}

    def conditions(self, model: Any, batch: Mapping[str, Tensor]) -> Any:
        return batch["style"]


TELLINGS: dict[str, type[Backings] | type[Texts] | type[Styles]] = {
    "musicgen": Texts,
    "personaljazz": Styles,
    "saxgpt": Backings,
}
"""By the family of models."""
