"""Learning what goes with what: sound with captions in, a space out in which both lie close.

A batch is stretches of sound, each with one of its captions; all others in the batch are what it does not go with, but
for those with the very same caption. Both ways, from texts to stretches and back, are counted alike (Radford et al.,
2021; arXiv:2103.00020). A fresh model gets a tokenizer made of the captions; one that goes on keeps its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from musictool.audio.augment import AugmentConfig, augment
from musictool.audio.spectrogram import LogMel
from musictool.checkpoints.store import Store
from musictool.errors import UsageError
from musictool.inference.subwords import (
    LEAST_VOCABULARY,
    TOKENIZER_NAME,
    Subwords,
    open_subwords,
    side_by_side,
    train_subwords,
)
from musictool.models.style_encoder import StyleEncoder, StyleEncoderConfig
from musictool.training.data.audio_windows import read_window
from musictool.training.data.captions import Captioned, open_captions

_DETUNING_ROOM = 1.03  # more sound than an example has, since one that is played faster is shorter
_NEAREST = (1, 5)
_STRETCHES_AT_ONCE = 16


@dataclass(frozen=True)
class StyleEncodingData:
    """What is learned from.

    Attributes:
        train: folders of sound with captions beside it, and lists of both.
        valid: those that figures are taken on; never drawn from.
        valid_stretches: how many of them are looked at, one a file.
        augment: what becomes of the sound; nothing by default.
    """

    train: tuple[Path, ...] = ()
    valid: tuple[Path, ...] = ()
    valid_stretches: int = 256
    augment: AugmentConfig | None = None

    def __post_init__(self) -> None:
        if self.valid_stretches < 1:
            raise ValueError("valid_stretches is 1 or more")


@dataclass(frozen=True)
class StyleEncodingLoss:
    """How much each way counts.

    Attributes:
        to_sound: finding the stretch that a text goes with.
        to_text: finding the text that a stretch goes with.
    """

    to_sound: float = 0.5
    to_text: float = 0.5


class _Example(NamedTuple):
    """A stretch of sound, float32 [N], where it ends in it, and the ids of a caption of it."""

    samples: NDArray[np.float32]
    frames: int
    ids: list[int]


class StyleEncoding:
    """The task.

    Args:
        model_config: of the model.
        data, loss: sections of the recipe.
        seed: of the run.
    """

    data_class: ClassVar[type] = StyleEncodingData
    loss_class: ClassVar[type] = StyleEncodingLoss
    families: ClassVar[tuple[str, ...]] = ("style-encoder",)

    def __init__(
        self, model_config: StyleEncoderConfig, data: StyleEncodingData, loss: StyleEncodingLoss, seed: int
    ) -> None:
        self._config = model_config
        self._data = data
        self._loss = loss
        self._seed = seed
        self._front_end = LogMel(model_config.front_end)
        self._origin: Path | None = None

    def use_store(self, store: Store, origin: str) -> None:
        """Take the tokenizer of the model that training begins with, if it does with one."""
        self._origin = store.find(origin).path if origin else None

    @cached_property
    def _train(self) -> list[Captioned]:
        return open_captions(self._data.train)

    @cached_property
    def _valid(self) -> list[Captioned]:
        return open_captions(self._data.valid)

    @cached_property
    def _subwords(self) -> Subwords:
        if self._origin is not None:
            return open_subwords(self._origin)
        return train_subwords(chain.from_iterable(entry.texts for entry in self._train), self._config.vocabulary)

    def check(self) -> None:
        """See whether there is something to learn from.

        Raises:
            InputError: a path is not there, or nothing there has a caption; or the model's tokenizer is damaged.
            UsageError: no data is named, or the model has no room for the ids of its tokenizer.
            MissingError: there is no library for tokenizers.
        """
        if not self._data.train:
            raise UsageError("no data to learn from", hint='name sound with captions: data.train=["FOLDER"]')
        _ = self._train
        if self._data.valid:
            _ = self._valid
        least = LEAST_VOCABULARY if self._origin is None else self._subwords.vocabulary
        if self._config.vocabulary < least:
            raise UsageError(f"a vocabulary of {self._config.vocabulary} is less than {least}", hint="model.vocabulary")

    def files(self) -> dict[str, bytes]:
        """What has to lie beside the model."""
        return {TOKENIZER_NAME: self._subwords.to_json().encode()}

    def example(self, index: int, data: StyleEncodingData) -> _Example:
        """Example `index`: a stretch of a file, every file as likely as any other, and one of its captions."""
        generator = np.random.default_rng((self._seed, index))
        entry = self._train[generator.integers(len(self._train))]
        text = entry.texts[generator.integers(len(entry.texts))]
        seconds = self._config.window_seconds * (_DETUNING_ROOM if data.augment is not None else 1)
        start = generator.uniform(0.0, max(0.0, entry.file.seconds - seconds))
        example = self._example(entry, start, text, round(seconds * self._config.front_end.rate_hz))
        if data.augment is None:
            return example
        changed = augment(example.samples, self._config.front_end.rate_hz, data.augment, generator)
        return example._replace(samples=changed.samples)

    def _example(self, entry: Captioned, start: float, text: str, count: int) -> _Example:
        front_end = self._config.front_end
        samples = read_window(entry.file, start, count, front_end.rate_hz, 1)[0]
        left = (entry.file.seconds - start) * front_end.rate_hz / front_end.hop_samples
        frames = max(1, min(self._config.window_frames, int(left)))
        return _Example(samples, frames, self._subwords.ids(text, self._config.tokens_max))

    def collate(self, examples: Sequence[_Example]) -> dict[str, Tensor]:
        """A batch: samples, float32 [B, N]; frames, int64 [B]; ids, int64 [B, T]; which are there, bool [B, T]."""
        count = self._config.window_frames * self._config.front_end.hop_samples
        samples = np.zeros((len(examples), count), np.float32)
        for row, example in zip(samples, examples, strict=True):
            heard = example.samples[:count]
            row[: len(heard)] = heard
        ids, visible = side_by_side([example.ids for example in examples])
        frames = torch.tensor([example.frames for example in examples])
        return {"samples": torch.from_numpy(samples), "frames": frames, "ids": ids, "ids_visible": visible}

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], loss: StyleEncodingLoss
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, a scalar, and of both ways before they are weighted."""
        logits = model(batch["ids"], batch["ids_visible"], *self._frames(batch))
        goes = goes_with(batch["ids"], batch["ids_visible"])
        parts = {"to_sound": softmax_loss(logits, goes), "to_text": softmax_loss(logits.T, goes.T)}
        total = loss.to_sound * parts["to_sound"] + loss.to_text * parts["to_text"]
        return total, {name: part.detach() for name, part in parts.items()}

    @torch.no_grad()
    def _frames(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Log-mel frames, float32 [B, F, M], and which are there, bool [B, F]."""
        samples = batch["samples"]
        with torch.autocast(samples.device.type, enabled=False):
            frames = self._front_end.to(samples.device)(samples)
        return frames, torch.arange(frames.shape[1], device=samples.device) < batch["frames"][:, None]

    def amounts(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """Seconds of sound in a batch."""
        return {"audio_seconds": batch["samples"].numel() / self._config.front_end.rate_hz}

    @torch.inference_mode()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The loss over all held-out stretches at once, and the share of texts whose own is among the nearest."""
        if not self._data.valid:
            return {}
        assert isinstance(model, StyleEncoder)
        device = model.embedding.weight.device
        examples = self._held_out()
        stretches = []
        for first in range(0, len(examples), _STRETCHES_AT_ONCE):
            batch = self.collate(examples[first : first + _STRETCHES_AT_ONCE])
            on_device = {key: value.to(device) for key, value in batch.items()}
            stretches.append(model.encode_audio(*self._frames(on_device)))
        ids, visible = (part.to(device) for part in side_by_side([example.ids for example in examples]))
        logits = model.contrast(model.encode_text(ids, visible), torch.cat(stretches)).float()
        goes = goes_with(ids, visible)
        to_sound, to_text = softmax_loss(logits, goes), softmax_loss(logits.T, goes.T)
        figures = {"loss": float(self._loss.to_sound * to_sound + self._loss.to_text * to_text)}
        for most in _NEAREST:
            nearest = logits.topk(min(most, len(logits)), dim=-1).indices
            figures[f"recall_{most}"] = float(goes.gather(1, nearest).any(1).float().mean())
        return figures

    def _held_out(self) -> list[_Example]:
        """The middle of each of the files that are looked at, with its first caption."""
        count = self._config.window_frames * self._config.front_end.hop_samples
        places = np.linspace(0, len(self._valid), min(self._data.valid_stretches, len(self._valid)), endpoint=False)
        entries = [self._valid[int(place)] for place in places]
        middles = [max(0.0, entry.file.seconds - self._config.window_seconds) / 2 for entry in entries]
        return [self._example(entry, middle, entry.texts[0], count) for entry, middle in zip(entries, middles)]


def goes_with(ids: Tensor, visible: Tensor) -> Tensor:
    """Which texts are the same, int64 and bool [B, T] to bool [B, B]: what goes with one then goes with the other."""
    ids = ids.masked_fill(~visible, -1)
    return (ids[:, None] == ids).all(-1)


def softmax_loss(logits: Tensor, goes: Tensor) -> Tensor:
    """The mean over rows of the cross-entropy of what goes with each, all of it alike.

    Args:
        logits: float [A, B].
        goes: bool [A, B], something in every row.
    """
    target = goes / goes.sum(-1, keepdim=True)
    return -(target * logits.float().log_softmax(-1)).sum(-1).mean()
